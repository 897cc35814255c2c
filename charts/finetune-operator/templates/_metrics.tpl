{{/* Name of the Service in front of /metrics and of what reads that; a Service's name takes fewer characters than others, and no dots. */}}
{{- define "finetune-operator.metricsName" -}}
{{- include "finetune-operator.fullname" . | replace "." "-" | trunc 55 | trimSuffix "-" -}}-metrics
{{- end -}}

{{/* "true" where there is such a Service: where it is asked for, or by a ServiceMonitor, which finds its targets through one. */}}
{{- define "finetune-operator.servesMetrics" -}}
{{- if or .Values.metrics.service.enabled (.Values.metrics.serviceMonitor).enabled -}}true{{- end -}}
{{- end -}}
