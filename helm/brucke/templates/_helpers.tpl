{{/* The name in labels. */}}
{{- define "brucke.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The name of all objects; what is added to it still fits into 63 bytes. */}}
{{- define "brucke.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "brucke.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "brucke.selectorLabels" -}}
app.kubernetes.io/name: {{ include "brucke.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "brucke.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "brucke.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "brucke.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "brucke.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "brucke.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A duration of Brücke's (250ms, 25s, 15m, 1h, 1d) in whole seconds, rounded up. */}}
{{- define "brucke.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}
{{- div (add $number 999) 1000 -}}
{{- else -}}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) -}}
{{- end -}}
{{- end }}

{{/*
The grace period: never less than the drain needs. After it the last sockets have
up to 3 s and the last spans 2.5 s. While no broker answers, questions to Kafka that
are under way take some seconds more; to be killed then costs nobody anything.
*/}}
{{- define "brucke.gracePeriod" -}}
{{- with .Values.drain -}}
{{- $delay := include "brucke.seconds" .delay | int64 -}}
{{- $window := include "brucke.seconds" .window | int64 -}}
{{- $margin := include "brucke.seconds" .margin | int64 -}}
{{- if gt $delay 300 -}}
{{- fail (printf "drain.delay (%s) is above 5m, the most that server.drain_delay may be" .delay) -}}
{{- end -}}
{{- if gt $window 600 -}}
{{- fail (printf "drain.window (%s) is above 10m, the most that server.drain_window may be" .window) -}}
{{- end -}}
{{- if lt $margin 10 -}}
{{- fail (printf "drain.margin (%s) is below 10s: after the drain the last sockets and spans need up to 6 s" .margin) -}}
{{- end -}}
{{- add $delay $window $margin -}}
{{- end -}}
{{- end }}

{{/*
How many replicas are written; empty: none. While a HorizontalPodAutoscaler sets
them, that is what the live Deployment has, for what Helm wrote once and leaves
out the next time falls back to 1. By server-side apply Helm may let go as soon as
somebody else has set it, and then must: the two would contradict each other.
*/}}
{{- define "brucke.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{- .Values.replicas -}}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "brucke.fullname" .) -}}
{{- $applied := false -}}
{{- $othersSet := false -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- if ne .manager "helm" -}}
{{- $othersSet = or $othersSet (hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas") -}}
{{- else if eq .operation "Apply" -}}
{{- $applied = true -}}
{{- end -}}
{{- end -}}
{{- if not (and $applied $othersSet) -}}
{{- dig "spec" "replicas" "" $live -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The address at which a pod listens, before the colon. */}}
{{- define "brucke.address" -}}
{{- if or (has "IPv6" .Values.service.ipFamilies) (contains "DualStack" .Values.service.ipFamilyPolicy) -}}
[::]
{{- else -}}
0.0.0.0
{{- end -}}
{{- end }}

{{/* Carries out a merge patch (RFC 7386) in place: {target, patch}. */}}
{{- define "brucke.merge" -}}
{{- $target := .target -}}
{{- range $key, $value := .patch -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $target $key -}}
{{- else if kindIs "map" $value -}}
{{- if not (kindIs "map" (get $target $key)) -}}
{{- $_ := set $target $key dict -}}
{{- end -}}
{{- include "brucke.merge" (dict "target" (get $target $key) "patch" $value) -}}
{{- else -}}
{{- $_ := set $target $key $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Prints the object that "brucke.object.NAME" describes, patched: [root, NAME]. */}}
{{- define "brucke.emit" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $object := include (printf "brucke.object.%s" $name) $root | fromYaml -}}
{{- with get $object "Error" -}}
{{- fail (printf "the chart's %s is no YAML: %s" $name .) -}}
{{- end -}}
{{- with get $root.Values.patch $name -}}
{{- include "brucke.merge" (dict "target" $object "patch" .) -}}
{{- end -}}
{{- toYaml $object -}}
{{- end }}
