#!/usr/bin/env bash
# A real Slurm (munge, slurmctld, some slurmd) on this machine's loopback, for tests: nothing outside of
# its folder is written, and no service of the system is touched. Any user may start one; jobs run as that user.
#
#   eval "$(scripts/start_slurm.sh start --dir DIR [OPTION VALUE]...)"    # exports SLURM_CONF
#   sbatch ...; squeue ...
#   scripts/start_slurm.sh kill-node z1 --dir DIR     SIGKILL for its slurmd and all of its jobs: a lost node
#   scripts/start_slurm.sh start-node z1 --dir DIR
#   scripts/start_slurm.sh stop --dir DIR
#   scripts/start_slurm.sh install                    munge and slurm-wlm, on Debian and Ubuntu, as root
#
# Options of `start`: --nodes N (2), --cpus C of each (2), --gpus G of each, made up (0), --grace S of a preemption (5),
# --kill-wait S (30), --down-after S without a word of a node (15), --max-array N (1001), --user-signal 1 (preemption
# sends a job's --signal at once), --most N (arrays beyond N jobs in all are refused as by a site's QOS; how many more are
# taken is what the file `room` in the folder says).
#
# Partitions: `normal` (default; jobs of it are requeued when preempted), `urgent` (preempts it), `short` (a time limit
# of at most two minutes).
set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
ACTION=${1:-}; shift || true
DIR= NODES=2 CPUS=2 GPUS=0 MAX_ARRAY=1001 GRACE=5 KILL_WAIT=30 DOWN_AFTER=15 USER_SIGNAL= MOST= NODE=
while [ $# -gt 0 ]; do case $1 in
  --dir) DIR=$2; shift 2;; --nodes) NODES=$2; shift 2;; --cpus) CPUS=$2; shift 2;; --gpus) GPUS=$2; shift 2;;
  --max-array) MAX_ARRAY=$2; shift 2;; --grace) GRACE=$2; shift 2;; --kill-wait) KILL_WAIT=$2; shift 2;;
  --down-after) DOWN_AFTER=$2; shift 2;; --user-signal) USER_SIGNAL=$2; shift 2;; --most) MOST=$2; shift 2;;
  -*) echo "$1: no such option" >&2; exit 2;; *) NODE=$1; shift;; esac; done
[ "$ACTION" = install ] || [ -n "$DIR" ] || { echo "give --dir, a folder of its own" >&2; exit 2; }
export SLURM_CONF=$DIR/slurm.conf

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
tree() { local child; for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do tree "$child"; done; echo "$1"; }
up() { sinfo -h -N -p normal -t idle,alloc,mix -o %N 2>/dev/null | wc -l; }
listens() { grep -qi "$(printf ':%04X 00000000:0000 0A' "$1")" /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
free_port() {  # the first of some that follow each other
  local port busy
  while :; do
    port=$((20000 + RANDOM % 1200 * 10)); busy=
    for next in $(seq "$port" $((port + NODES))); do listens "$next" && busy=1; done
    [ "$busy" ] || { echo "$port"; return; }
  done
}
start_munge() {  # with a key and a socket of its own; --force: it refuses folders whose parents others may write
  alive "$DIR/munge/pid" && return
  mkdir -p "$DIR/munge"; chmod 700 "$DIR/munge"
  dd if=/dev/urandom of="$DIR/munge/key" bs=128 count=1 status=none; chmod 400 "$DIR/munge/key"
  munged --force --key-file "$DIR/munge/key" --socket "$DIR/munge/socket" --pid-file "$DIR/munge/pid" \
    --log-file "$DIR/log/munged.log" --seed-file "$DIR/munge/seed" 2>/dev/null
}
refuse_beyond() {  # what a site's QOS would do
  echo "$MOST" > "$DIR/room"
  cat > "$DIR/job_submit.lua" <<LUA
function slurm_job_submit(job, partitions, uid)
  local last = job.array_inx and string.match(job.array_inx, "^0%-(%d+)")
  if not last then return slurm.SUCCESS end
  local file = io.open("$DIR/room"); local room = file:read("*n") - 1 - last; file:close()
  if room < 0 then return slurm.ESLURM_ACCOUNTING_POLICY end
  file = io.open("$DIR/room", "w"); file:write(room); file:close()
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid) return slurm.SUCCESS end
LUA
}
configure() {
  local host me port gres= node
  host=$(hostname -s); me=$(id -un); port=$(free_port)
  if [ "$GPUS" -gt 0 ]; then  # any device file will do: nothing here confines devices, and Slurm gives numbers all the same
    gres=" Gres=gpu:$GPUS"; : > "$DIR/gres.conf"
    for node in $(seq "$NODES"); do for gpu in $(seq 0 $((GPUS - 1))); do
      ln -sf /dev/null "$DIR/gpu$gpu"; echo "NodeName=z$node Name=gpu File=$DIR/gpu$gpu" >> "$DIR/gres.conf"
    done; done
  fi
  [ -z "$MOST" ] || refuse_beyond
  cat > "$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$me
SlurmdUser=$me
SlurmctldPort=$port
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdPidFile=$DIR/%n.pid
SlurmdLogFile=$DIR/log/%n.log
SlurmdSpoolDir=$DIR/spool/%n
StateSaveLocation=$DIR/state
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$DIR/munge/socket
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
ReturnToService=2
MaxArraySize=$MAX_ARRAY
KillWait=$KILL_WAIT
InactiveLimit=0
MinJobAge=3600
SlurmdTimeout=$DOWN_AFTER
SlurmctldTimeout=15
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=200000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
${USER_SIGNAL:+SlurmctldParameters=preempt_send_user_signal}
${MOST:+JobSubmitPlugins=lua}
${gres:+GresTypes=gpu}
$(for node in $(seq "$NODES"); do
  echo "NodeName=z$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + node)) CPUs=$CPUS RealMemory=4000$gres State=UNKNOWN"
done)
PartitionName=normal Nodes=z[1-$NODES] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE
PartitionName=urgent Nodes=z[1-$NODES] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=z[1-$NODES] MaxTime=2 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE
CONF
}

case $ACTION in
install)
  command -v slurmctld >/dev/null && command -v munged >/dev/null && exit 0
  { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurm-wlm munge liblua5.1-0; } >&2
  ;;
start)
  command -v slurmctld >/dev/null || { echo "no slurmctld here: $0 install (Debian, Ubuntu: slurm-wlm, munge)" >&2; exit 3; }
  mkdir -p "$DIR"/{state,log,spool}; chmod 755 "$DIR"
  start_munge
  alive "$DIR/slurmctld.pid" || { configure; slurmctld -f "$SLURM_CONF" >&2; }
  for node in $(seq "$NODES"); do
    mkdir -p "$DIR/spool/z$node"; alive "$DIR/z$node.pid" || slurmd -N "z$node" -f "$SLURM_CONF" >&2
  done
  for _ in $(seq 200); do [ "$(up)" = "$NODES" ] && break; sleep 0.1; done
  [ "$(up)" = "$NODES" ] || { echo "its nodes are not up; see $DIR/log" >&2; exit 1; }
  echo "export SLURM_CONF=$SLURM_CONF"
  ;;
kill-node)
  for process in $(tree "$(cat "$DIR/$NODE.pid")"); do kill -9 "$process" 2>/dev/null || true; done
  # Its jobs are no longer among slurmd's children: their environment names the node, slurmstepd is their parent.
  for process in $(grep -lsz "^SLURMD_NODENAME=$NODE$" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
    grep -qsz "^SLURM_CONF=$SLURM_CONF$" "/proc/$process/environ" || continue
    parent=$(awk '/^PPid/ {print $2}' "/proc/$process/status" 2>/dev/null || true)
    kill -9 "$process" 2>/dev/null || true
    if [ -n "$parent" ] && grep -qs slurmstepd "/proc/$parent/comm"; then kill -9 "$parent" 2>/dev/null || true; fi
  done
  ;;
start-node) slurmd -N "$NODE" -f "$SLURM_CONF" >&2;;
stop)
  [ -s "$SLURM_CONF" ] && timeout 5 scancel --user "$(id -un)" 2>/dev/null || true
  daemons=("$DIR"/z*.pid "$DIR/slurmctld.pid" "$DIR/munge/pid")
  for number in TERM KILL; do
    for file in "${daemons[@]}"; do alive "$file" && kill -s $number "$(cat "$file")" 2>/dev/null || true; done
    for _ in $(seq 50); do
      left=; for file in "${daemons[@]}"; do alive "$file" && left=1; done; [ "$left" ] || exit 0; sleep 0.1
    done
  done
  ;;
*) echo "start, stop, kill-node, start-node or install" >&2; exit 2;;
esac
