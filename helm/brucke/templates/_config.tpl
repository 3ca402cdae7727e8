{{/* A value in TOML. A string of JSON is one of TOML. */}}
{{- define "brucke.toml.value" -}}
{{- if kindIs "string" . -}}
{{- toJson . -}}
{{- else if kindIs "bool" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "brucke.toml.value" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "map" . -}}
{{- $items := list -}}
{{- range $key, $value := . -}}
{{- $items = append $items (printf "%s = %s" (toJson $key) (include "brucke.toml.value" $value)) -}}
{{- end -}}
{ {{- join ", " $items -}} }
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end }}

{{/* The keys of a section; null counts as not set. */}}
{{- define "brucke.toml.keys" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "brucke.toml.value" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Everything that Brücke is told, as the values and the chart have it. */}}
{{- define "brucke.settings" -}}
{{- $settings := deepCopy .Values.config -}}
{{- $server := $settings.server -}}
{{- $_ := set $server "listen" (printf "%s:%d" (include "brucke.address" .) (int .Values.ports.clients)) -}}
{{- if .Values.tls.secretName -}}
{{- if or (hasKey $server "tls_certificate_file") (hasKey $server "tls_key_file") -}}
{{- fail "config.server.tls_certificate_file and tls_key_file contradict tls.secretName: take one of the two out" -}}
{{- end -}}
{{- $_ := set $server "tls_certificate_file" "/etc/brucke/tls/tls.crt" -}}
{{- $_ := set $server "tls_key_file" "/etc/brucke/tls/tls.key" -}}
{{- end -}}
{{- if and .Values.tracing.otlpEndpoint (dig "endpoint" "" (default dict $settings.tracing)) -}}
{{- fail "config.tracing.endpoint contradicts tracing.otlpEndpoint, which would count more: take one of the two out" -}}
{{- end -}}
{{- $admin := dict "listen" (printf "%s:%d" (include "brucke.address" .) (int .Values.ports.admin)) -}}
{{- $_ := set $settings "admin" (merge $admin (default dict $settings.admin)) -}}
{{- $ours := (include "brucke.kafka" . | fromYaml).settings -}}
{{- range $key, $value := $ours -}}
{{- if and (hasSuffix "_file" $key) (hasKey $settings.kafka $key) -}}
{{- fail (printf "config.kafka.%s contradicts the Secret that `kafka` names for it: take one of the two out" $key) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "kafka" (merge $settings.kafka $ours) -}}
{{- include "brucke.demand" $settings -}}
{{- toYaml $settings -}}
{{- end }}

{{/* Fails where something that has no default is missing. */}}
{{- define "brucke.demand" -}}
{{- if not .kafka.bootstrap_servers -}}
{{- fail "config.kafka.bootstrap_servers is empty: name the brokers as [\"host:9092\"], or a Strimzi cluster by kafka.strimzi.cluster" -}}
{{- end -}}
{{- if not .channels -}}
{{- fail "config.channels is empty: name at least one channel, with `name`, `topic` and whose its records are" -}}
{{- end -}}
{{- if and (ne (default "tokens" .auth.mode) "none") (not .auth.issuers) -}}
{{- fail "config.auth.issuers is empty: name whose tokens are believed, or let everybody in by config.auth.mode \"none\"" -}}
{{- end -}}
{{- end }}

{{/* The configuration file. */}}
{{- define "brucke.toml" -}}
{{- $settings := include "brucke.settings" . | fromYaml -}}
{{- range $name, $section := omit $settings "auth" "channels" "tenants" -}}
{{- if $section -}}
[{{ $name }}]
{{- include "brucke.toml.keys" $section }}

{{ end -}}
{{- end -}}
[auth]
{{- include "brucke.toml.keys" (omit $settings.auth "issuers") }}
{{- range $settings.auth.issuers }}

[[auth.issuers]]
{{- include "brucke.toml.keys" . }}
{{- end }}
{{- range $settings.channels }}

[[channels]]
{{- include "brucke.toml.keys" . }}
{{- end }}
{{- with $settings.tenants }}

[tenants]
{{- include "brucke.toml.keys" (omit . "exceptions") }}
{{- range .exceptions }}

[[tenants.exceptions]]
{{- include "brucke.toml.keys" . }}
{{- end }}
{{- end }}
{{ end }}
