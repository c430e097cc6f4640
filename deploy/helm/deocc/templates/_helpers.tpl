{{- define "deocc.name" -}}
{{- /* KubeRay adds up to 30 characters to it. */ -}}
{{- if contains "deocc" .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}{{ else }}{{ printf "%s-deocc" .Release.Name | trunc 30 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "deocc.selector" -}}
app.kubernetes.io/name: deocc
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "deocc.labels" -}}
{{ include "deocc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "deocc.image" -}}
{{- $kind := ternary "gpu" "cpu" (or (gt (float64 .Values.segmenter.gpus) 0.0) (gt (float64 .Values.completer.gpus) 0.0)) -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind) }}
{{- end }}

{{- define "deocc.engineClaim" -}}
{{- if .Values.engine.volume.existingClaim }}{{ .Values.engine.volume.existingClaim }}{{ else if .Values.engine.volume.create }}{{ include "deocc.name" . }}-engines{{ end }}
{{- end }}

{{- /* Names what the engine's job makes, so that it is made once and again only if something else is wanted. */ -}}
{{- define "deocc.engineDigest" -}}
{{- list .Values.engine.name .Values.engine.job .Chart.AppVersion | toJson | sha256sum | trunc 8 -}}
{{- end }}

{{- define "deocc.builderImage" -}}
{{ .Values.engine.job.image.repository }}:{{ .Values.engine.job.image.tag | default (printf "%s-builder" .Chart.AppVersion) }}
{{- end }}

{{- define "deocc.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "deocc.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What is wrong however well each value is formed. */ -}}
{{- define "deocc.check" -}}
{{- $claim := include "deocc.engineClaim" . -}}
{{- with .Values -}}
{{- range $name := list "segmenter" "completer" -}}
{{- $replicas := index $.Values $name -}}
{{- if gt (int $replicas.minReplicas) (int $replicas.maxReplicas) }}{{ fail (printf "%s.minReplicas is above maxReplicas" $name) }}{{ end -}}
{{- end -}}
{{- if gt (int .workers.minReplicas) (int .workers.maxReplicas) }}{{ fail "workers.minReplicas is above maxReplicas" }}{{ end -}}
{{- if and (gt (int .edge.replicas) 1) (not .images.existingClaim) }}{{ fail "more than one edge needs images.existingClaim: an upload would be known to one of them only" }}{{ end -}}
{{- if and .engine.name (not $claim) }}{{ fail "engine.name needs engine.volume: only the embedded engine is in the image" }}{{ end -}}
{{- if .engine.job.enabled -}}
{{- if not $claim }}{{ fail "engine.job needs engine.volume" }}{{ end -}}
{{- if not (or .engine.job.pull .engine.job.compile) }}{{ fail "engine.job has nothing to do: say pull or compile" }}{{ end -}}
{{- if and .engine.job.compile (not .engine.name) }}{{ fail "engine.job.compile needs engine.name" }}{{ end -}}
{{- if and .engine.job.pull (not .engine.job.acceptLicence) }}{{ fail "engine.job.pull fetches weights under licences of their own: read them, then set acceptLicence" }}{{ end -}}
{{- end -}}
{{- $gpus := index (.workers.resources.limits | default dict) "nvidia.com/gpu" -}}
{{- if and (or (gt (float64 .segmenter.gpus) 0.0) (gt (float64 .completer.gpus) 0.0)) (not $gpus) }}{{ fail "replicas with GPUs need workers with them: workers.resources.limits nvidia.com/gpu" }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* One deployment of Serve: (list name values drainSeconds). */ -}}
{{- define "deocc.deployment" -}}
{{- $values := index . 1 -}}
- name: {{ index . 0 }}
  autoscaling_config:
    min_replicas: {{ $values.minReplicas }}
    max_replicas: {{ $values.maxReplicas }}
    policy:
      policy_function: deocc_service.scaling:BacklogPolicy
      policy_kwargs: {target: {{ $values.backlogSeconds }}}
  graceful_shutdown_timeout_s: {{ index . 2 }}
  ray_actor_options:
    num_cpus: {{ $values.cpus }}
    num_gpus: {{ $values.gpus }}
{{- end }}

{{- define "deocc.serveConfig" -}}
# Replicas, and so proxies, are on the workers only.
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
  {{- if .Values.tls.secretName }}
  ssl_certfile: /etc/deocc/tls/tls.crt
  ssl_keyfile: /etc/deocc/tls/tls.key
  {{- end }}
grpc_options:
  # Serve's own port is always in clear; with TLS the hook opens 9000 beside it and refuses calls on this one.
  port: {{ ternary 9001 9000 (not (empty .Values.tls.secretName)) }}
  grpc_servicer_functions: [deocc_service.proxy.install]
  enable_reflection: {{ and (empty .Values.tls.secretName) (empty .Values.apiKeys.secretName) }}
logging_config: {log_level: WARNING, enable_access_log: false}
applications:
  - name: deocc
    route_prefix: /
    import_path: deocc_service.app:application
    deployments:
      - name: Edge
        num_replicas: {{ .Values.edge.replicas }}
        graceful_shutdown_timeout_s: {{ .Values.drainSeconds }}
        ray_actor_options:
          num_cpus: {{ .Values.edge.cpus }}
      {{- if .Values.fused }}
      {{- include "deocc.deployment" (list "Deoccluder" .Values.completer .Values.drainSeconds) | nindent 6 }}
      {{- else }}
      {{- include "deocc.deployment" (list "Segmenter" .Values.segmenter .Values.drainSeconds) | nindent 6 }}
      {{- include "deocc.deployment" (list "Completer" .Values.completer .Values.drainSeconds) | nindent 6 }}
      {{- end }}
{{- end }}

{{- /* The service's settings: the same in every pod, because the proxies' hook reads them, too. */ -}}
{{- define "deocc.env" -}}
- {name: DEOCC_HTTP_HOST, value: 0.0.0.0}
- {name: DEOCC_GRPC_HOST, value: 0.0.0.0}
- {name: DEOCC_GRPC_PORT, value: "9000"}
- {name: DEOCC_EDGES, value: {{ .Values.edge.replicas | quote }}}
- {name: DEOCC_FUSED, value: {{ .Values.fused | quote }}}
- {name: DEOCC_DRAIN_SECONDS, value: {{ .Values.drainSeconds | quote }}}
- {name: DEOCC_CACHE, value: /var/lib/deocc}
{{- if not (hasKey .Values.settings "slots") }}
# By itself the service would count the cores of the node.
- {name: DEOCC_SLOTS, value: {{ max 1 (floor .Values.completer.cpus | int) | quote }}}
{{- end }}
{{- with .Values.engine.name }}
- {name: DEOCC_ENGINE, value: {{ . | quote }}}
{{- end }}
{{- if .Values.images.existingClaim }}
- {name: DEOCC_IMAGE_DIR, value: /var/lib/deocc-images}
{{- end }}
{{- if .Values.tls.secretName }}
- {name: DEOCC_TLS_CERTIFICATE, value: /etc/deocc/tls/tls.crt}
- {name: DEOCC_TLS_KEY, value: /etc/deocc/tls/tls.key}
{{- end }}
{{- if .Values.apiKeys.secretName }}
- {name: DEOCC_API_KEYS_FILE, value: /etc/deocc/keys/keys.json}
{{- end }}
{{- /* toJson: helm holds large numbers as floats and would write 1e+06. */}}
{{- range $name, $value := .Values.settings }}
{{- if kindIs "map" $value }}
{{- range $inner, $number := $value }}
- {name: DEOCC_{{ upper $name }}__{{ upper $inner }}, value: {{ $number | toJson | quote }}}
{{- end }}
{{- else }}
- {name: DEOCC_{{ upper $name }}, value: {{ $value | toJson | quote }}}
{{- end }}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: deocc_service.proxy.middlewares}
# Twice what the service itself accepts, so that its typed refusal is the one that is seen.
- {name: RAY_SERVE_GRPC_MAX_MESSAGE_SIZE, value: {{ include "deocc.messageBytes" . | quote }}}
- {name: HOME, value: /tmp}
{{- end }}

{{- define "deocc.messageBytes" -}}
{{- $bytes := 20971520 -}}
{{- with .Values.settings.limits }}{{ with .max_bytes }}{{ $bytes = . }}{{ end }}{{ end -}}
{{- mul 2 (add (mul 2 (int64 $bytes)) 1048576) -}}
{{- end }}

{{- define "deocc.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if include "deocc.engineClaim" . }}
- {name: engines, mountPath: /var/lib/deocc, readOnly: true}
{{- end }}
{{- if .Values.images.existingClaim }}
- {name: images, mountPath: /var/lib/deocc-images}
{{- end }}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /etc/deocc/tls, readOnly: true}
{{- end }}
{{- if .Values.apiKeys.secretName }}
- {name: keys, mountPath: /etc/deocc/keys, readOnly: true}
{{- end }}
{{- end }}

{{- define "deocc.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with include "deocc.engineClaim" . }}
- name: engines
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.images.existingClaim }}
- name: images
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- with .Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.apiKeys.secretName }}
- name: keys
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
