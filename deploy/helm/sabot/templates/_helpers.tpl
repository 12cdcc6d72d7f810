{{- define "sabot.selector" -}}
app.kubernetes.io/name: sabot
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "sabot.labels" -}}
{{ include "sabot.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sabot.userLabels" -}}
app.kubernetes.io/name: sabot
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: access
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sabot.probe" -}}
port: metrics
{{- if .Values.metrics.probeHost }}
host: {{ .Values.metrics.probeHost | quote }}
{{- end }}
{{- end }}
