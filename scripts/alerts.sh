#!/bin/bash
# Writes the alerts of deploy/prometheus/alerts.yaml to where Kubernetes and the chart have them.
#
#   scripts/alerts.sh
set -euo pipefail
cd "$(dirname "$0")/../deploy"
cp prometheus/alerts.yaml helm/openhqm/files/alerts.yaml
{
    printf '# Made by scripts/alerts.sh of deploy/prometheus/alerts.yaml.\n'
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: openhqm\nspec:\n'
    sed '/^#/d; s/^./  &/' prometheus/alerts.yaml
} > kubernetes/monitoring/alerts.yaml
