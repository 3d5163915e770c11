{{- define "openhqm.fullname" -}}
{{- if contains "openhqm" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-openhqm" (.Release.Name | trunc 42 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "openhqm.selector" -}}
app.kubernetes.io/name: openhqm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "openhqm.labels" -}}
{{ include "openhqm.selector" . }}
app.kubernetes.io/part-of: openhqm
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The part with the door: listener or all. */}}
{{- define "openhqm.door" -}}
{{- if has "all" .Values.roles }}all{{ else if has "listener" .Values.roles }}listener{{ end -}}
{{- end -}}

{{- define "openhqm.type" -}}
{{- (.Values.config.queue | default dict).type | default "sqlite" -}}
{{- end -}}

{{/* "true" where several processes can have the queue and the results, "" where one process has a file. */}}
{{- define "openhqm.shared" -}}
{{- if or (has (include "openhqm.type" .) (list "redis" "custom")) (eq "redis" ((.Values.config.cache | default dict).type | default "")) -}}
true
{{- end -}}
{{- end -}}

{{- define "openhqm.image" -}}
{{- $variants := dict "redis" "redis" "kafka" "kafka" "sqs" "sqs" "azure_eventhubs" "azure" "gcp_pubsub" "gcp" "mqtt" "mqtt" "rabbitmq" "rabbitmq" -}}
{{- $variant := get $variants (include "openhqm.type" .) | default "all" -}}
{{- if and (ne $variant "redis") (include "openhqm.shared" .) }}{{ $variant = "all" }}{{ end -}}
{{- .Values.image.repository }}:{{ .Values.image.tag | default (printf "latest-%s" $variant) -}}
{{- end -}}

{{- define "openhqm.drain" -}}
{{- $drain := (.Values.config.server | default dict).drain_seconds -}}
{{- if or (kindIs "float64" $drain) (kindIs "int64" $drain) }}{{ int $drain }}{{ else }}30{{ end -}}
{{- end -}}

{{/* Draining, the seconds before it in which the Service takes the pod out, and ten more. */}}
{{- define "openhqm.grace" -}}
{{- add (include "openhqm.drain" . | int) 15 -}}
{{- end -}}

{{- define "openhqm.scheme" -}}
{{- if dig "tls" "cert" "" (.Values.config.admin | default dict) }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* Whether keys.json of existingSecret is mounted. */}}
{{- define "openhqm.keys" -}}
{{- $auth := .Values.config.auth | default dict -}}
{{- if and .Values.existingSecret (has ($auth.type | default "") (list "api_key" "any")) (not $auth.keys_file) }}true{{ end -}}
{{- end -}}

{{- define "openhqm.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if include "openhqm.keys" . -}}
{{- $_ := set $config.auth "keys_file" "/etc/openhqm/secrets/keys.json" -}}
{{- end -}}
{{- if not (has "sidecar" .Values.roles) -}}
{{- $admin := dict "host" "0.0.0.0" "port" 8001 -}}
{{- if .Values.existingSecret }}{{ $_ := set $admin "key" "${ADMIN_KEY}" }}{{ end -}}
{{- $_ := set $config "admin" (merge ($config.admin | default dict) $admin) -}}
{{- $_ := set $config "server" (merge ($config.server | default dict) (dict "host" "0.0.0.0")) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What would not work is refused here, before anything is installed. */}}
{{- define "openhqm.check" -}}
{{- $roles := .Values.roles -}}
{{- $type := include "openhqm.type" . -}}
{{- if and (has "all" $roles) (gt (len $roles) 1) -}}
{{- fail "roles: all is listener and worker in one: leave the others out" -}}
{{- end -}}
{{- if and (has "sidecar" $roles) (gt (len $roles) 1) -}}
{{- fail "roles: sidecar is configured by itself: install the others as a release of their own" -}}
{{- end -}}
{{- if and (has "sidecar" $roles) (not (dig "sidecar" "enabled" false (.Values.config.proxy | default dict))) -}}
{{- fail "config.proxy.sidecar: a sidecar needs enabled: true, and upstream: http://localhost:PORT of the application" -}}
{{- end -}}
{{- range $section, $keys := dict "server" (list "host" "port" "endpoints") "admin" (list "host" "port" "enabled") -}}
{{- range $key := $keys -}}
{{- if hasKey (get $.Values.config $section | default dict) $key -}}
{{- fail (printf "config.%s.%s: the chart sets it: leave it out" $section $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne "" (dig "connection" "sqlite" "path" "" (.Values.config.queue | default dict)) -}}
{{- fail "config.queue.connection.sqlite.path: it is /data, where the volume is mounted: leave it out" -}}
{{- end -}}
{{- if gt ((.Values.config.server | default dict).workers | default 1 | int) 1 -}}
{{- fail "config.server.workers: a pod has one process: raise listener.replicas" -}}
{{- end -}}
{{- if not (include "openhqm.shared" .) -}}
{{- if and (has $type (list "sqlite" "memory")) (or (has "listener" $roles) (has "worker" $roles)) -}}
{{- fail (printf "roles: %s is for one process: say roles: [all], or queue.type redis, or a broker with cache.type redis" $type) -}}
{{- end -}}
{{- if and (has "listener" $roles) (or (gt (int .Values.listener.replicas) 1) .Values.listener.autoscaling.enabled) -}}
{{- fail (printf "listener.replicas: %s keeps the results in a file that one process has: say 1, or config.cache.type: redis" $type) -}}
{{- end -}}
{{- if and (has "sidecar" $roles) (eq $type "sqlite") (gt (int .Values.sidecar.application.replicas) 1) .Values.sidecar.application.image -}}
{{- fail "sidecar.application.replicas: each would have a file of its own, which is gone with its pod: say config.queue.type redis" -}}
{{- end -}}
{{- end -}}
{{- if not (or (has "sidecar" $roles) .Values.existingSecret (dig "key" "" (.Values.config.admin | default dict))) -}}
{{- fail "existingSecret: the admin listener, which is probed, needs a key: name a Secret with admin-key" -}}
{{- end -}}
{{- if and .Values.worker.autoscaling.enabled (not (or (has "listener" $roles) .Values.worker.autoscaling.prometheusAddress)) -}}
{{- fail "worker.autoscaling: a listener is asked for the backlog, because there may be no worker: say roles: [listener, worker], or worker.autoscaling.prometheusAddress" -}}
{{- end -}}
{{- if and (or .Values.worker.autoscaling.enabled .Values.serviceMonitor.enabled) (not .Values.existingSecret) -}}
{{- fail "existingSecret: autoscaling and serviceMonitor read admin-key from it" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (include "openhqm.door" .)) -}}
{{- fail "ingress.enabled: there is no door: name listener or all in roles" -}}
{{- end -}}
{{- end -}}
