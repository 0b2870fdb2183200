#!/usr/bin/env bash
# Measures what only a GPU can tell, in under nine minutes, the most important first.
#
#   benchmarks/on_gpu.sh WEIGHTS PUBLISHED IMAGES [OUT]
#
# WEIGHTS     folder of converted checkpoints: resnet50, upernet, color
# PUBLISHED   folder of PyTorch's files of the same
# IMAGES      folder of photographs, some hundred
# OUT         where the parts write, each as it goes; default build/on_gpu
#
# Each part has its own limit, so that a slow one costs no other. SMALLEST=1 tries every
# part on a CPU, at its smallest size.
set -u
weights=$1 published=$2 images=$3 out=${4:-build/on_gpu}
mkdir -p "$out"
if [ -n "${SMALLEST:-}" ]; then
  equality=(--kernels=gpu --images=2 --units=8 --mask=9 --concepts=5 --rounds=1)
  scale=(--images=6 --few=2 --batch_size=2 --segment_batch=1 --dtype=float32 --layers=stem,layer4)
  versus=(--device=cpu --rounds=1 "--scenarios=one ResNet-50")
else
  equality=() scale=()
  versus=(--device=cuda --dtype=bfloat16 --compile --times=16 --rounds=3 --save=versus_torch_gpu)
fi

part() {
  local name=$1 limit=$2
  shift 2
  timeout "$limit" "${PYTHON:-python}" -m "$@" >"$out/$name.txt" 2>&1
  echo "$name: exit $?" | tee -a "$out/parts.txt"
}

part equality 90 benchmarks.equality "${equality[@]}"
part at_scale 150 benchmarks.at_scale "--weights=$weights" "${scale[@]}"
part versus_torch 280 benchmarks.versus_torch \
  "--published=$published" "--weights=$weights" "--images=$images" "${versus[@]}"
! grep -qv "exit 0" "$out/parts.txt"
