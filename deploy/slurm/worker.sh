#!/usr/bin/env bash
# Workers for a coordinator that stands elsewhere, as many as the array has tasks:
#
#   export PALIMPSEST__WORKER__COORDINATOR=http://head:7461
#   sbatch --array=0-15 --time=4:00:00 --cpus-per-task=8 deploy/slurm/worker.sh
#   sbatch --array=0-15 --time=4:00:00 --gpus=1 deploy/slurm/worker.sh
#
# They stay until the array is cancelled. A worker whose time is nearly up hands back what it would
# not finish, and its task is queued again. One that is preempted or loses its node is queued again
# by Slurm; what it had finished by then is not computed again.
#
# Every setting of 'palimpsest worker' can be given in the environment (PALIMPSEST__WORKER__...), or
# as an argument behind the script. PALIMPSEST_PROGRAM names the program where it is not in the PATH.
#
#SBATCH --job-name=palimpsest-worker
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
# (A minute: a worker that drains stays at most half of one.)
set -euo pipefail

[ -n "${PALIMPSEST__WORKER__COORDINATOR-}" ] || {
  echo "worker: set PALIMPSEST__WORKER__COORDINATOR to the coordinator's address, as http://head:7461" >&2
  exit 2
}

# The job as Slurm's commands know it: the number of an array's last task is that of the whole array.
job=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# When Slurm ends this job, so that no work is taken that would not be done by then: in seconds
# since 1970. Newer Slurm sets it; nothing is printed for a job without a limit.
end_time() {
  [ -z "${SLURM_JOB_END_TIME-}" ] || { echo "$SLURM_JOB_END_TIME"; return; }
  SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$job" --Format=EndTime | tr -dc 0-9
}
export PALIMPSEST__WORKER__VALID_UNTIL=${PALIMPSEST__WORKER__VALID_UNTIL-$(end_time)}
# The last bits of a result depend on the number of threads: it is what was asked for, not what
# the node happens to have.
export PALIMPSEST__WORKER__THREADS=${PALIMPSEST__WORKER__THREADS-${SLURM_CPUS_PER_TASK:-1}}

"${PALIMPSEST_PROGRAM:-palimpsest}" worker "$@" &
worker=$!
warned=no
trap 'warned=yes; kill -TERM $worker 2>/dev/null || true' TERM
status=0
wait "$worker" || status=$?
# A signal ends the first wait, not the worker.
while kill -0 "$worker" 2>/dev/null; do
  status=0
  wait "$worker" || status=$?
done

# The warning comes while the job runs. When it is cancelled, preempted or queued again by others,
# the same signal comes to a job that no longer counts as running: that is not for us to undo.
if [ $warned = yes ] && [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
  echo "worker: out of time, queued again"
  scontrol requeue "$job"
  exit 0
fi
exit $status
