#!/usr/bin/env bash
# A causal-tracing sweep as one Slurm job: a coordinator on the job's first node, a worker on every
# node, and the sweep, all of which end when it is done. What stands behind the script goes to
# 'palimpsest trace':
#
#   export PALIMPSEST_MODEL=/models/gpt2-xl
#   sbatch --nodes=4 --time=2:00:00 --cpus-per-task=8 deploy/slurm/sweep.sh --facts known_1000.json
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-task=1 ... deploy/slurm/sweep.sh ...   # a worker a GPU
#
# The job's coordinator speaks TLS and knows its own workers and submitter only, by certificates
# that the job makes for itself: others reach the port of a cluster's node as well.
#
# Results: one JSON object a line in results.jsonl in the job's folder, there once it is whole.
#
#   PALIMPSEST_FOLDER   the job's folder, on a disk that its nodes share (palimpsest-<job> in the
#                       folder of submission)
#   PALIMPSEST_MODEL    imported first: a folder, a .gguf file or hf:ORG/NAME
#   PALIMPSEST_HEAD     the name or address by which the nodes reach the first (its host name)
#   PALIMPSEST_PROGRAM  the program, where it is not in the PATH
#   PALIMPSEST_STORE    the coordinator's store (store in the job's folder; with its log in a bucket,
#                       a folder of the first node's own disk, which goes with the job)
#   PALIMPSEST__CLIENT__SERVER  a coordinator that stands elsewhere: the job joins it with its
#                       workers, and starts none of its own
#
# and every setting of the workers (PALIMPSEST__WORKER__...) and of the store (PALIMPSEST__STORE__...).
# With the store's log in a bucket the first node's disk may be lost, or may be another the next time:
#
#   export PALIMPSEST__STORE__LOG=bucket PALIMPSEST__STORE__BUCKET=s3://lab/sweeps
#   export PALIMPSEST__STORE__ENDPOINT=https://minio.lab:9000 PALIMPSEST__STORE__CREDENTIALS=$HOME/.aws/credentials
#
# Jobs that name one bucket and prefix have one store, one job after the other: each waits until the
# coordinator of the one before has left, and models and answers are there already.
#
# A job that runs out of time, is preempted or loses its first node is queued again and goes on
# where it was: the sweep is not submitted twice, and what is finished is not computed again. The
# loss of another node costs the tasks that ran there.
#
#SBATCH --job-name=palimpsest-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
set -euo pipefail

say() { echo "sweep: $*" >&2; }
die() { say "$*"; exit 1; }

# The job as Slurm's commands know it: the number of an array's last task is that of the whole array.
job=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
program=${PALIMPSEST_PROGRAM:-palimpsest}
folder=${PALIMPSEST_FOLDER:-$SLURM_SUBMIT_DIR/palimpsest-$SLURM_JOB_ID}
mkdir -p "$folder"
store=${PALIMPSEST_STORE:-$folder/store}
copy=''   # a store of which the bucket has everything
standby=''
if [ "${PALIMPSEST__STORE__LOG-}" = bucket ]; then
  [ -n "${PALIMPSEST_STORE-}" ] || copy=${TMPDIR:-/tmp}/palimpsest-$SLURM_JOB_ID
  store=${copy:-$store}
  # The coordinator that had the log may be going just now.
  standby=--standby
fi
coordinator='' workers='' client=''   # process ids
warned=no
trap 'warned=yes' TERM

# Tells a process of ours to stop, and waits until it has.
stop() {
  [ -n "$1" ] || return 0
  kill -TERM "$1" 2>/dev/null || true
  await "$1"
}
await() {
  while kill -0 "$1" 2>/dev/null; do wait "$1" || true; done
}
# Clients and workers first: they take their leave of the coordinator. srun would kill its tasks
# if it were told to stop, so Slurm passes the signal on to them instead: to the steps of the job,
# without this script.
leave() {
  stop "$client"
  if [ -n "$workers" ] && kill -0 "$workers" 2>/dev/null; then
    scancel --signal=TERM "$job" || true
    await "$workers"
  fi
  stop "$coordinator"
  coordinator='' workers='' client=''
  [ -z "$copy" ] || rm -rf "$copy"
}
trap leave EXIT

# When Slurm ends this job, so that workers take no work that would not be done by then: in seconds
# since 1970. Newer Slurm sets it; nothing is printed for a job without a limit.
end_time() {
  [ -z "${SLURM_JOB_END_TIME-}" ] || { echo "$SLURM_JOB_END_TIME"; return; }
  SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$job" --Format=EndTime | tr -dc 0-9
}
export PALIMPSEST__WORKER__VALID_UNTIL=${PALIMPSEST__WORKER__VALID_UNTIL-$(end_time)}
# The last bits of a result depend on the number of threads: it is what was asked for, not what
# the node happens to have.
export PALIMPSEST__WORKER__THREADS=${PALIMPSEST__WORKER__THREADS-${SLURM_CPUS_PER_TASK:-1}}

if [ -z "${PALIMPSEST__CLIENT__SERVER-}" ]; then
  head=${PALIMPSEST_HEAD:-$(hostname)}
  tls=$folder/tls
  user=$(id -un)
  rm -rf "$folder/address" "$tls"   # the first node may be another than the last time
  "$program" auth init "$tls" --host "$head" --for "submitter/$user" --for worker/slurm >/dev/null
  export PALIMPSEST__SERVE__TLS_CERTIFICATE=$tls/server.pem PALIMPSEST__SERVE__TLS_KEY=$tls/server.key
  export PALIMPSEST__SERVE__CLIENT_CA=$tls/ca.pem
  export PALIMPSEST__CLIENT__CA=$tls/ca.pem PALIMPSEST__WORKER__CA=$tls/ca.pem
  export PALIMPSEST__CLIENT__CERTIFICATE=$tls/submitter-$user.pem
  export PALIMPSEST__CLIENT__KEY=$tls/submitter-$user.key
  export PALIMPSEST__WORKER__CERTIFICATE=$tls/worker-slurm.pem
  export PALIMPSEST__WORKER__KEY=$tls/worker-slurm.key
  "$program" serve --listen 0.0.0.0:0 --store "$store" --port-file "$folder/address" $standby \
    >>"$folder/coordinator.log" 2>&1 &
  coordinator=$!
  until [ -s "$folder/address" ]; do
    kill -0 "$coordinator" 2>/dev/null ||
      die "the coordinator does not serve: $(tail -n 3 "$folder/coordinator.log")"
    [ $warned = no ] || break
    sleep 0.1
  done
  port=$(sed 's/.*://' "$folder/address")
  export PALIMPSEST__CLIENT__SERVER=https://$head:$port
fi
export PALIMPSEST__WORKER__COORDINATOR=$PALIMPSEST__CLIENT__SERVER
say "the coordinator is at $PALIMPSEST__CLIENT__SERVER"
# Of a model that is there already, nothing is sent again.
[ -z "${PALIMPSEST_MODEL-}" ] || "$program" model import "$PALIMPSEST_MODEL" >&2

# --cpus-per-task, because srun does not take it from the job since Slurm 22.05.
srun --no-kill --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  "$program" worker </dev/null >>"$folder/workers.log" 2>&1 &
workers=$!
# The same request in every run of this job: the coordinator knows a sweep that it has.
"$program" trace --json --request-id "slurm-${SLURM_CLUSTER_NAME-}-$SLURM_JOB_ID" "$@" \
  >"$folder/results.part" &
client=$!

# Waits for what takes long in pieces, so that no signal comes unheard between two commands.
while [ $warned = no ] && kill -0 "$client" 2>/dev/null && kill -0 "$workers" 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
if [ $warned = yes ]; then
  leave
  # The warning comes while the job runs. When it is cancelled, preempted or queued again by
  # others, the same signal comes to a job that no longer counts as running: not ours to undo.
  if [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
    say "out of time, queued again"
    scontrol requeue "$job"
  fi
  exit 0
fi
if kill -0 "$client" 2>/dev/null; then
  die "all workers have ended: see $folder/workers.log"
fi
status=0
wait "$client" || status=$?
leave
[ $status = 0 ] || die "the sweep did not end well (status $status)"
mv "$folder/results.part" "$folder/results.jsonl"
say "done: $folder/results.jsonl"
