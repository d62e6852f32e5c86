/* One run, a worker that may fail (0) and one that does not (1): claim, permit, lease and reaper. README.md says how names map to the code, and what is left out.
 *
 * Every step is one atomic act of one process, in any order and after any pause: a main process that is stopped, a
 * database that is away and a message that is slow are all just steps that do not happen for a while. Only three things
 * keep time: a guardian kills within the tick in which its worker's own lease ends, the reaper counts whole ticks in
 * which it read, and (LIVE only) whatever is healthy renews within a tick.
 *
 * Tokens and nonces are random, never come again, and are compared with the row's alone. So each is one bit, "is it the
 * row's?", which goes out everywhere as soon as the row has another one or none (`outdate`).
 */

#ifndef RETRIES
#define RETRIES 1
#endif
#ifndef FAULTS
#define FAULTS 2          /* messages and reports lost or doubled, answers lost, processes killed, in any mixture */
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

#define NO_MARGIN          1   /* a worker goes on for longer than its lease */
#define FROM_ANSWER        2   /* and counts it from the answer to a renewal, not from its sending */
#define BODIES_ONLY        3   /* a guardian ends bodies, not children that have not begun theirs */
#define REGISTERED_AGAIN   4   /* a renewal re-asserts attempts that have only registered */
#define PERMIT_TO_OVER     5   /* a permit is given to an incarnation whose lease is over */
#define BY_ID_ALONE        6   /* the reaper does not compare again what it chose a row by */
#define NO_TOKEN           7   /* whoever reports about a run under way ends its attempt */
#define OLD_GRANT          8   /* what was granted begins under the next incarnation, too */
#define FINISHED_DROPPED   9   /* an outcome is forgotten once it is published */
#define CANCEL_DROPPED    10   /* what is handed back forgets that its cancel was asked for */
#define NEVER_RETRACTED   11   /* what was not permitted in time stays dispatched (LIVE) */
#define NEVER_JUDGED      12   /* nobody judges leases (LIVE) */

#define LEASE  3
#define MARGIN 1
#if MUTANT == NO_MARGIN
#define HOLD   (LEASE + 2 * MARGIN)
#else
#define HOLD   (LEASE - MARGIN)
#endif

/* status of the run */
#define PENDING    1
#define DISPATCHED 2
#define RUNNING    3
#define COMPLETED  4
#define FAILED     5
#define LOST       6
#define CANCELLED  7
#define IS_FINAL   (status >= COMPLETED)

/* stages of a worker's one slot */
#define FREE       0
#define REGISTERED 1   /* asks, or is about to */
#define GRANTED    2   /* the permit is written, its answer on the way */
#define REFUSED    3   /* the refusal is on the way */
#define CLEARED    4   /* answered, the lease was looked at, the body not begun */
#define STARTED    5   /* the body runs */
#define FINISHED   6   /* on the list of finished attempts until it is known to be recorded */

/* kinds of reports and of answers */
#define NOTHING    0
#define HAND_BACK  1
#define FINISH     2
#define VOID       1
#define STOP       2
#define RECORDED   3
#define OVER       4

/* -- the database: the run's row, and incarnations (worker 0 uses two in turn) ---------------------------------- */
byte status = PENDING, attempt = 1, holder;
bool cancel_asked;
bool over[3], fresh[2];

/* -- the broker: messages with the row's token, and one of an older token ---------------------------------------- */
byte messages;
bool stale_message;

/* -- workers. s_, l_, r_: slot, late ask, report. cur: its token is the row's; holds: its nonce is, too --------------- */
bool up[2];
byte own[2];                                            /* its incarnation */
byte age[2] = HOLD;                                     /* ticks since it sent the last renewal that was answered */
byte stage[2], s_attempt[2], s_outcome[2], s_own[2];
bool s_cur[2], s_holds[2], s_told[2];                   /* told: its report was published */
bool late;  byte l_own;                                 /* an ask of worker 0 that nobody waits for any more; current */
bool gave;                                              /* the row is held by what worker 0 knows to have given up */
byte report[2], r_outcome[2];                           /* what it published last; may arrive often, late, or never */
bool r_cur[2], r_holds[2], r_of_late;
bool cut;                                               /* LIVE: it reaches the database no more, for a time */
bool renewal;  byte sent_age, answer;                   /* the database's answer to worker 0, on its way back */

/* -- the reaper's memory, and what only the properties look at --------------------------------------------------- */
byte watched[2];
bool chosen;  byte chosen_holder;
byte faults_left = FAULTS;
byte bodies;
bool started[RETRIES + 2];
bool asked_for;                                         /* the attempt under way was permitted to one that asked */
bool cancel_answered;
hidden byte to_nobody;

#define LEASED(w)     (age[w] < HOLD)
#define CHILD(w)      (stage[w] >= REGISTERED && stage[w] <= STARTED)
#define RUNS_AT(w)    (stage[w] == STARTED && s_attempt[w] == attempt)
#define IN_HANDS(w)   (stage[w] != FREE && s_cur[w])

inline drop(w) { report[w] = NOTHING; r_cur[w] = false; r_holds[w] = false; r_outcome[w] = 0; r_of_late = r_of_late && w }

inline outdate() {
    s_cur[0] = false; s_cur[1] = false; s_holds[0] = false; s_holds[1] = false;
    r_cur[0] = false; r_cur[1] = false; r_holds[0] = false; r_holds[1] = false; r_of_late = false;
    late = false; l_own = 0; gave = false;
    if :: MUTANT != NO_TOKEN -> drop(0); drop(1) :: else fi;   /* nobody would hear them */
    if :: messages > 0 -> stale_message = true :: else fi;
    messages = 0; holder = 0; asked_for = false
}

inline write_status(to) {
    assert(!IS_FINAL);                                   /* G3: a final state is never left */
    status = to
}

/* tasks_app/lifecycle/ending.py: end_attempts */
inline end_attempt(outcome) {
    if
    :: outcome == LOST -> assert(asked_for)              /* G2: no run ends LOST that was never permitted */
    :: else
    fi;
    assert(!RUNS_AT(0) && !RUNS_AT(1));                  /* G4: no attempt ends while its body runs */
    if
    :: outcome != COMPLETED && cancel_asked -> write_status(CANCELLED)
    :: outcome != COMPLETED && !cancel_asked && attempt <= RETRIES -> write_status(PENDING); attempt++
    :: else -> write_status(outcome)
    fi;
    outdate()
}

/* tasks_app/lifecycle/finish.py: finish */
inline finish(current, holds, outcome) {
    if
    :: MUTANT == NO_TOKEN && (status == RUNNING || status == DISPATCHED) -> end_attempt(outcome)
    :: MUTANT != NO_TOKEN && current && (status == DISPATCHED || (status == RUNNING && holds)) -> end_attempt(outcome)
    :: else
    fi
}

/* tasks_app/lifecycle/recede.py: hand_back */
inline hand_back(current, holds) {
    if
    :: current && (status == DISPATCHED || (status == RUNNING && holds)) ->
        assert(!RUNS_AT(0) && !RUNS_AT(1));
        if
        :: cancel_asked && MUTANT != CANCEL_DROPPED -> write_status(CANCELLED)
        :: else -> write_status(PENDING)
        fi;
        outdate()
    :: else
    fi
}

/* tasks_app/lifecycle/permit.py: permit. Answers GRANTED or REFUSED. */
inline permit(to, current, holds, incarnation) {
    if
    :: current && !(over[incarnation] && MUTANT != PERMIT_TO_OVER) && status == DISPATCHED ->
        assert(!cancel_answered);                        /* G8: no permit after an answered cancel */
        assert(!over[incarnation]);                      /* G4: none to an incarnation whose lease is over */
        write_status(RUNNING);
        holds = true; holder = incarnation; asked_for = true;
        to = GRANTED
    :: current && !(over[incarnation] && MUTANT != PERMIT_TO_OVER) && status == RUNNING && holds ->
        assert(!over[incarnation]);
        asked_for = true;
        to = GRANTED
    :: else -> to = REFUSED
    fi
}

/* An answer on its way that speaks of this delivery has nobody to speak to any more. */
inline empty_slot(w) {
    stage[w] = FREE; s_attempt[w] = 0; s_outcome[w] = 0; s_own[w] = 0; s_cur[w] = false; s_holds[w] = false;
    s_told[w] = false;
    if :: w == 0 && answer != OVER -> answer = NOTHING :: else fi
}

inline tell(w, kind) {
    report[w] = kind; r_cur[w] = s_cur[w]; r_holds[w] = s_holds[w]; r_outcome[w] = s_outcome[w];
    r_of_late = r_of_late && w
}

/* A delivery of worker 0 whose body has not begun is given up. Its ask may still be on the way. */
inline give_up(w) {
    if :: stage[w] != REFUSED && s_cur[w] -> tell(w, HAND_BACK) :: else fi;
    if
    :: stage[w] == REGISTERED && s_cur[w] && !late -> late = true; l_own = s_own[w]; r_of_late = true
    :: else
    fi;
    gave = gave || s_holds[w];
    empty_slot(w)
}

/* A child ends: its body with an outcome, and what had not begun is given up. What is granted may be on its way to a
 * child (permit_desk.py) and looks for itself whether it may still begin; at once, or later. */
inline end_child(w, outcome) {
    if
    :: stage[w] == STARTED -> bodies--; stage[w] = FINISHED; s_outcome[w] = outcome
    :: stage[w] == REGISTERED || stage[w] == REFUSED || stage[w] == CLEARED -> give_up(w)
    :: else
    fi
}

inline forget_all(w) {
    if :: stage[w] == STARTED -> bodies-- :: else fi;
    if :: stage[w] != GRANTED || !up[w] -> empty_slot(w) :: else fi;
    gave = false; renewal = false; answer = NOTHING; sent_age = 0
}

/* The older one of two incarnations must be nobody's any more before its number is used again. */
#define NEXT         (1 - own[0])
#define CAN_REGISTER (!(status == RUNNING && holder == NEXT) && !(late && l_own == NEXT) && \
                      !(stage[0] == GRANTED && s_own[0] == NEXT) && \
                      !(chosen && chosen_holder == NEXT))

inline register(w) {
    own[w] = NEXT;
    over[own[w]] = false; fresh[own[w]] = true; watched[own[w]] = 0;
    up[w] = true; age[w] = 0
}

/* == dispatchers: claim, commit, publish ========================================================================== */
active proctype Dispatcher() {
    do
    :: d_step { status == PENDING -> write_status(DISPATCHED); outdate(); messages = 1 }
    od
}

/* == a worker's deliveries: dispatch → pool → child =============================================================== */
inline register_delivery(w, current) {
    stage[w] = REGISTERED; s_cur[w] = current; s_own[w] = own[w]; s_attempt[w] = attempt
}

proctype Child(byte w) {
    do
    :: d_step { up[w] && stage[w] == FREE && LEASED(w) && messages > 0 && !IS_FINAL ->
        messages--; register_delivery(w, true) }
    :: d_step { up[w] && stage[w] == FREE && LEASED(w) && stale_message && !IS_FINAL ->
        stale_message = false; register_delivery(w, false) }
    :: d_step { stage[w] == REGISTERED -> permit(stage[w], s_cur[w], s_holds[w], s_own[w]) }
    :: d_step { stage[w] == REFUSED -> empty_slot(w) }
    :: d_step { stage[w] == GRANTED ->                    /* workers_app/execution/child.py: still_good, lease_valid */
        if
        :: LEASED(w) && (s_own[w] == own[w] || MUTANT == OLD_GRANT) -> stage[w] = CLEARED
        :: else -> give_up(w)
        fi }
    :: d_step { stage[w] == CLEARED ->
        assert(!started[s_attempt[w]]);                  /* G2: each attempt begins at most once */
        assert(bodies == 0);                             /* G4: a successor never beside its predecessor */
        started[s_attempt[w]] = true; bodies++;
        stage[w] = STARTED }
    :: d_step { stage[w] == STARTED -> end_child(w, COMPLETED) }
    :: d_step { stage[w] == STARTED -> end_child(w, FAILED) }
    :: d_step { up[w] && stage[w] == FINISHED && !s_told[w] ->
        tell(w, FINISH); s_told[w] = true;
        if :: MUTANT == FINISHED_DROPPED -> empty_slot(w) :: else fi }
    :: d_step { w == 1 && stage[w] == FINISHED && s_told[w] -> finish(s_cur[w], s_holds[w], s_outcome[w]); empty_slot(w) }
    od
}

/* An ask that nobody waits for arrives at the database. */
active proctype Late() {
    do
    :: d_step { late && !IS_FINAL ->
        permit(to_nobody, true, gave, l_own);
        r_holds[0] = r_holds[0] || (r_of_late && gave); late = false; l_own = 0; r_of_late = false }
    od
}

/* == ingest: what was published arrives; with a fault left it may do so again ===================================== */
proctype Ingest(byte w) {
    do
    :: d_step { report[w] == FINISH -> finish(r_cur[w], r_holds[w], r_outcome[w]); drop(w) }
    :: d_step { report[w] == HAND_BACK -> hand_back(r_cur[w], r_holds[w]); drop(w) }
    :: d_step { report[w] == FINISH && faults_left > 0 ->
        faults_left--; finish(r_cur[w], r_holds[w], r_outcome[w]) }
    :: d_step { report[w] == HAND_BACK && faults_left > 0 -> faults_left--; hand_back(r_cur[w], r_holds[w]) }
    od
}

/* == the lease of worker 0: register, renew with the list, obey the answer ======================================== */
/* workers_app/control_plane/database.py: renew, and tasks_app/lifecycle/recede.py: reassert */
inline answer_renewal() {
    renewal = true; sent_age = 0; answer = NOTHING;
    if
    :: over[own[0]] -> answer = OVER
    :: else ->
        fresh[own[0]] = true;
        if
        :: MUTANT == REGISTERED_AGAIN && stage[0] == REGISTERED && s_cur[0] && status == DISPATCHED ->
            status = RUNNING; s_holds[0] = true; holder = own[0]
        :: (stage[0] == CLEARED || stage[0] == STARTED) && !s_holds[0] -> answer = VOID
        :: (stage[0] == CLEARED || stage[0] == STARTED) && s_holds[0] && cancel_asked -> answer = STOP
        :: stage[0] == FINISHED && !s_cur[0] -> answer = RECORDED
        :: else
        fi;
        /* Held here and on no list: given up, or nobody can say whether its body began. */
        if
        :: status == RUNNING && holder == own[0] && !s_holds[0] && gave -> hand_back(true, true)
        :: status == RUNNING && holder == own[0] && !s_holds[0] && !gave -> assert(false); end_attempt(LOST)
        :: else
        fi
    fi
}

/* workers_app/execution/node.py: renew, _obey, _begin_again */
inline obey() {
    if
    :: answer == OVER -> forget_all(0); register(0)
    :: else ->
        if :: MUTANT == FROM_ANSWER -> age[0] = 0 :: else -> age[0] = sent_age fi;
        if
        :: answer == RECORDED -> empty_slot(0)
        :: answer == VOID -> end_child(0, LOST)
        :: answer == STOP -> end_child(0, CANCELLED)
        :: answer == NOTHING && stage[0] == FINISHED && s_told[0] ->   /* not recorded by now: handed in directly */
            finish(s_cur[0], s_holds[0], s_outcome[0]); empty_slot(0)
        :: else
        fi;
        renewal = false; answer = NOTHING; sent_age = 0
    fi
}

active proctype Lease() {
    do
    :: d_step { !up[0] && CAN_REGISTER && !IS_FINAL -> register(0) }
    :: d_step { up[0] && !cut && !renewal && !IS_FINAL -> answer_renewal() }
    :: d_step { renewal && (answer != OVER || CAN_REGISTER) && !IS_FINAL -> obey() }
    od
}

/* == time, guardians and the judge of leases ====================================================================== */
#ifdef LIVE
#define MAY_TICK (!up[0] || cut || age[0] == 0)
#else
#define MAY_TICK true
#endif

inline grow_old(w) {
    if :: age[w] < HOLD -> age[w]++ :: else fi;
    if :: renewal && sent_age < HOLD -> sent_age++ :: else fi;
    if
    :: !LEASED(w) && (stage[w] == STARTED || (CHILD(w) && MUTANT != BODIES_ONLY)) -> end_child(w, LOST)
    :: else
    fi
}

/* dispatch/leases.py: LeaseWatch.observe. A count begins anew when the counter has changed. */
inline judge(n) {
    if
    :: over[n] -> skip
    :: !over[n] && fresh[n] -> fresh[n] = false; watched[n] = 0
    :: else ->
        watched[n]++;
        if
        :: watched[n] >= LEASE -> watched[n] = 0; if :: MUTANT != NEVER_JUDGED -> over[n] = true :: else fi
        :: else
        fi
    fi
}

active proctype Clock() {
    do
    :: d_step { MAY_TICK && !IS_FINAL -> grow_old(0); judge(0); judge(1) }
#ifndef LIVE
    :: d_step { !IS_FINAL ->                              /* a read failed: every count begins anew with the next */
        grow_old(0); fresh[0] = !over[0]; fresh[1] = !over[1] }
#endif
    od
}

/* == the reaper's sweeps: tasks_app/lifecycle/reap.py ============================================================= */
active proctype Lose() {
    do
    :: d_step { !chosen && status == RUNNING && over[holder] -> chosen = true; chosen_holder = holder }
    :: d_step { chosen ->
        if
        :: MUTANT == BY_ID_ALONE -> end_attempt(LOST)
        :: MUTANT != BY_ID_ALONE && status == RUNNING && holder == chosen_holder && over[holder] -> end_attempt(LOST)
        :: else
        fi;
        chosen = false; chosen_holder = 0 }
    od
}

/* Not permitted in time. LIVE: a message that lies there or is in a worker's hands is in time. */
#ifdef LIVE
#define TOO_LATE (messages == 0 && !IN_HANDS(0) && !IN_HANDS(1))
#else
#define TOO_LATE true
#endif
active proctype Retract() {
    do
    :: d_step { status == DISPATCHED && TOO_LATE && MUTANT != NEVER_RETRACTED -> write_status(PENDING); outdate() }
    od
}

/* == a person, and what goes wrong ================================================================================ */
active proctype Person() {
    if
    :: d_step { !IS_FINAL ->
        cancel_answered = true;
        if
        :: status == RUNNING -> cancel_asked = true
        :: else -> write_status(CANCELLED); outdate()
        fi }
#ifdef LIVE
    :: true
#endif
    fi
}

#define MORE_FAULTS (faults_left > 0 && !IS_FINAL)
active proctype Faults() {
    do
    :: d_step { MORE_FAULTS && messages > 0 -> faults_left--; messages-- }
    :: d_step { MORE_FAULTS && messages == 1 -> faults_left--; messages++ }
    :: d_step { MORE_FAULTS && report[0] != NOTHING -> faults_left--; drop(0) }
    :: d_step { MORE_FAULTS && report[1] != NOTHING -> faults_left--; drop(1) }
    :: d_step { MORE_FAULTS && stage[0] == GRANTED -> faults_left--; stage[0] = REGISTERED }   /* the answer is lost */
    :: d_step { MORE_FAULTS && up[0] -> faults_left--; up[0] = false; forget_all(0); age[0] = HOLD }
#ifdef LIVE
    :: d_step { MORE_FAULTS && !cut -> faults_left--; cut = true }
    :: d_step { cut -> cut = false }
#endif
    od
}

init {
    atomic {
        own[0] = 1; over[0] = true; over[1] = true;       /* the first one is 0 */
        own[1] = 2; up[1] = true; age[1] = 0;
        run Child(0); run Ingest(0); run Child(1); run Ingest(1)
    }
}

#ifdef LIVE
ltl ends { <> IS_FINAL }
#endif
