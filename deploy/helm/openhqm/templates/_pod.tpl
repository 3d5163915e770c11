{{/* The variables of the process: those of the values, and the key of the admin listener. */}}
{{- define "openhqm.env" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  {{- if kindIs "string" $value }}
  value: {{ $value | quote }}
  {{- else }}
  valueFrom: {secretKeyRef: {name: {{ $value.secret }}, key: {{ $value.key }}}}
  {{- end }}
{{- end }}
{{- if and .Values.existingSecret (not (has "sidecar" .Values.roles)) }}
- name: ADMIN_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: admin-key}}
{{- end }}
{{- end -}}

{{- define "openhqm.mounts" -}}
- {name: configuration, mountPath: /etc/openhqm/cfg.yaml, subPath: cfg.yaml, readOnly: true}
{{- if include "openhqm.keys" . }}
- {name: secrets, mountPath: /etc/openhqm/secrets, readOnly: true}
{{- end }}
{{- if .Values.handlers }}
- {name: handlers, mountPath: /app, readOnly: true}
{{- end }}
{{- range $number, $each := .Values.secretFiles }}
- {name: files-{{ $number }}, mountPath: {{ $each.path }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "openhqm.volumes" -}}
- name: configuration
  configMap: {name: {{ include "openhqm.fullname" . }}}
{{- if include "openhqm.keys" . }}
- name: secrets
  secret: {secretName: {{ .Values.existingSecret }}, defaultMode: 0440, items: [{key: keys.json, path: keys.json}]}
{{- end }}
{{- if .Values.handlers }}
- name: handlers
  configMap: {name: {{ include "openhqm.fullname" . }}-handlers}
{{- end }}
{{- range $number, $each := .Values.secretFiles }}
- name: files-{{ $number }}
  secret: {secretName: {{ $each.secret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "openhqm.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A pod of one role: a dictionary with root, the role, and its values. */}}
{{- define "openhqm.pod" -}}
{{- $root := .root -}}
{{- $door := ne .role "worker" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "openhqm.grace" $root }}
{{- with $root.Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with get $root.Values $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
containers:
  - name: openhqm
    image: {{ include "openhqm.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: ["--config", "/etc/openhqm/cfg.yaml", "--role", {{ .role }}]
    env: {{- include "openhqm.env" $root | nindent 6 }}
    ports:
      {{- if $door }}
      - {name: http, containerPort: 8000}
      {{- end }}
      - {name: admin, containerPort: 8001}
    {{- if $door }}
    lifecycle:
      # The Service takes this pod out within these seconds. Until then new connections still come.
      preStop: {exec: {command: ["sleep", "5"]}}
    {{- end }}
    livenessProbe:
      httpGet: {path: /health/live, port: admin, scheme: {{ include "openhqm.scheme" $root }}}
      periodSeconds: 10
      timeoutSeconds: 5
    readinessProbe:
      httpGet: {path: /health/ready, port: admin, scheme: {{ include "openhqm.scheme" $root }}}
      periodSeconds: 2
      timeoutSeconds: 2
    resources: {{- toYaml .values.resources | nindent 6 }}
    securityContext: {{- include "openhqm.confined" $root | nindent 6 }}
    volumeMounts:
      {{- include "openhqm.mounts" $root | nindent 6 }}
      {{- if .data }}
      - {name: data, mountPath: /data}
      {{- end }}
volumes:
  {{- include "openhqm.volumes" $root | nindent 2 }}
  {{- if .data }}
  - name: data
    persistentVolumeClaim: {claimName: {{ $root.Values.persistence.existingClaim | default (printf "%s-data" (include "openhqm.fullname" $root)) }}}
  {{- end }}
{{- end -}}

{{/* For initContainers of an application: a native sidecar. It is started before the application and ends after it, and has no
     readiness probe, so a queue that is away takes no pod out of service. */}}
{{- define "openhqm.sidecar" -}}
- name: openhqm
  image: {{ include "openhqm.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args: ["--config", "/etc/openhqm/cfg.yaml"]
  env:
    - {name: OPENHQM_ADMIN__PORT, value: "null"}
    {{- include "openhqm.env" . | nindent 4 }}
  ports:
    - {name: http, containerPort: 8000}
  startupProbe:
    httpGet: {path: /_openhqm/health/live, port: http}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /_openhqm/health/live, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
  lifecycle:
    preStop: {exec: {command: ["sleep", "5"]}}
  resources: {{- toYaml .Values.sidecar.resources | nindent 4 }}
  securityContext:
    runAsUser: 10001
    runAsGroup: 10001
    {{- include "openhqm.confined" . | nindent 4 }}
  volumeMounts: {{- include "openhqm.mounts" . | nindent 4 }}
{{- end -}}

{{- define "openhqm.sidecar.volumes" -}}
{{- include "openhqm.volumes" . -}}
{{- end -}}
