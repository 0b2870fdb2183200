#!/bin/bash
# One dissection on GPUs under SLURM: sbatch docs/deploy/slurm.sh
#
# One process for each GPU; JAX finds the others by SLURM's variables. Two minutes before
# the time limit the run saves itself, and the job goes back to the queue.
#SBATCH --job-name=jdissect
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

# After how many losses the job ends for good.
losses=20

# USR1 is the warning before the time limit, and comes to this shell alone. scancel with a
# signal sends it to all processes of srun, but not here. (SIGTERM to srun itself would
# have it kill them.) A job that was cancelled does not come back.
warned=""
trap 'warned=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

srun .venv/bin/python -m jdissect.launch --start_timeout=300 -- \
    -m jdissect dissect \
    --config=mixup:imagenet \
    --workdir=/shared/runs/mixup \
    --config.model.weights=/shared/weights/mixup \
    --config.segmenter.upernet=/shared/weights/upernet \
    --config.segmenter.color=/shared/weights/color &
run=$!

wait "$run"
code=$?
if [ -n "$warned" ]; then
    wait "$run" # the signal had ended the first wait
    code=$?
fi

# 143: saved on SIGTERM. 3: a process was lost. 137: one was killed, by the kernel for
# memory, say. All else is not mended by another start: 0 done, 1 a failure of the program,
# 2 a mistake in flags, config or data.
case "$code" in
143) [ -n "$warned" ] && scontrol requeue "$SLURM_JOB_ID" ;;
3 | 137) [ "${SLURM_RESTART_COUNT:-0}" -lt "$losses" ] && scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$code"
