{{/*
Variables of the container: the chart's own, then those of the values. The drain is
among them, and not in the file, which a running pod reads anew: a variable stays
for as long as the grace period that belongs to it.
*/}}
{{- define "brucke.env" -}}
{{- $env := list (dict "name" "BRUCKE_SERVER_DRAIN_DELAY" "value" .Values.drain.delay) (dict "name" "BRUCKE_SERVER_DRAIN_WINDOW" "value" .Values.drain.window) -}}
{{- $env = concat $env ((include "brucke.kafka" . | fromYaml).env | default list) -}}
{{- with .Values.tracing.otlpEndpoint -}}
{{- $env = append $env (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" .) -}}
{{- end -}}
{{- $names := list -}}
{{- range $env -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $instead := include "brucke.instead" . | fromYaml -}}
{{- range .Values.extraEnv -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "extraEnv sets %s, which is set already: set %s instead" .name (get $instead .name)) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf "extraEnv sets %s, which is set already: the API server refuses a variable that stands twice" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $env = append $env . -}}
{{- end -}}
env:
  {{- toYaml $env | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
What to set instead of each variable that would count more than the file, or that the
chart sets itself. Of what `extraEnvFrom` brings nobody knows the names here.
*/}}
{{- define "brucke.instead" -}}
{{- $instead := dict "BRUCKE_CONFIG" "config" -}}
{{- range $section, $keys := include "brucke.settings" . | fromYaml -}}
{{- if kindIs "map" $keys -}}
{{- range $key, $value := $keys -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $instead (printf "BRUCKE_%s_%s" $section $key | upper) (printf "config.%s.%s" $section $key) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $_ := set $instead (printf "BRUCKE_%s" $section | upper) (printf "config.%s" $section) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $instead "BRUCKE_SERVER_LISTEN" "ports.clients" -}}
{{- $_ := set $instead "BRUCKE_ADMIN_LISTEN" "ports.admin" -}}
{{- $_ := set $instead "BRUCKE_SERVER_DRAIN_DELAY" "drain.delay" -}}
{{- $_ := set $instead "BRUCKE_SERVER_DRAIN_WINDOW" "drain.window" -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $instead "BRUCKE_SERVER_TLS_CERTIFICATE_FILE" "tls.secretName" -}}
{{- $_ := set $instead "BRUCKE_SERVER_TLS_KEY_FILE" "tls.secretName" -}}
{{- end -}}
{{- $kafka := include "brucke.kafka" . | fromYaml -}}
{{- range $key, $value := $kafka.settings -}}
{{- if not (hasKey $.Values.config.kafka $key) -}}
{{- $_ := set $instead (printf "BRUCKE_KAFKA_%s" $key | upper) "the values of kafka" -}}
{{- end -}}
{{- end -}}
{{- range $kafka.env -}}
{{- $_ := set $instead .name "the values of kafka" -}}
{{- end -}}
{{- if .Values.tracing.otlpEndpoint -}}
{{- $_ := set $instead "OTEL_EXPORTER_OTLP_ENDPOINT" "tracing.otlpEndpoint" -}}
{{- end -}}
{{- toYaml $instead -}}
{{- end }}

{{- define "brucke.volumeMounts" -}}
- name: config
  mountPath: /etc/brucke/config
  readOnly: true
{{- if (include "brucke.kafka" . | fromYaml).sources }}
- name: kafka
  mountPath: /etc/brucke/kafka
  readOnly: true
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /etc/brucke/tls
  readOnly: true
{{- end }}
{{- range .Values.files }}
- name: files-{{ .name }}
  mountPath: /etc/brucke/files/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "brucke.volumes" -}}
- name: config
  configMap:
    name: {{ include "brucke.fullname" . }}
{{- with (include "brucke.kafka" . | fromYaml).sources }}
- name: kafka
  projected:
    defaultMode: 0440
    sources:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- with .Values.tls }}
{{- if .secretName }}
- name: tls
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
    items:
      - key: {{ .certificateKey }}
        path: tls.crt
      - key: {{ .privateKey }}
        path: tls.key
{{- end }}
{{- end }}
{{- range .Values.files }}
- name: files-{{ .name }}
  {{- if .secretName }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .configMapName }}
  {{- end }}
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the container and the init container have in common. */}}
{{- define "brucke.container" -}}
image: {{ include "brucke.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{ include "brucke.env" . | trim }}
volumeMounts:
  {{- include "brucke.volumeMounts" . | nindent 2 }}
{{- end }}

{{- define "brucke.topologySpread" -}}
{{- if .Values.topologySpread.constraints -}}
{{- toYaml .Values.topologySpread.constraints -}}
{{- else -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "brucke.selectorLabels" $ | nindent 6 }}
  matchLabelKeys:
    - pod-template-hash
{{- end }}
{{- end -}}
{{- end }}
