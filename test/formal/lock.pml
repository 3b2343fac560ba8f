/*
 * The mutex of assembly/lock.ts, statement by statement. One `atomic` here is one atomic instruction
 * there. The ten seconds of patience are left out: whoever would trap there is a deadlock here, which
 * spin reports as an invalid end state. `notify` may wake any sleeper, so every order is covered.
 *
 * Shown: never two threads inside, never everybody asleep; and what one has done inside, the next one
 * sees, since `sum` is added to in two steps.
 *
 * Each -D breaks one thing, and must be refuted: TEST_THEN_SET, TWO_STATES, BLIND_WAIT, EARLY_NOTIFY,
 * NO_WAIT.
 */
#ifndef THREADS
#define THREADS 3
#endif
#define ROUNDS 2

byte word;
byte inside;
byte sum;
byte finished;
bool asleep[THREADS];

inline take() {
#ifdef TEST_THEN_SET
  before = word;
  if
  :: before == 0 -> word = 1
  :: else
  fi;
#else
  atomic { before = word; if :: before == 0 -> word = 1 :: else fi }
#endif
}

inline takeContended() {
#ifdef TWO_STATES
  take()
#else
  atomic { before = word; word = 2 }
#endif
}

inline wait() {
#ifdef BLIND_WAIT
  asleep[me] = true;
#else
#ifdef TWO_STATES
  atomic { if :: word == 1 -> asleep[me] = true :: else fi };
#else
  atomic { if :: word == 2 -> asleep[me] = true :: else fi };
#endif
#endif
  !asleep[me]
}

inline notify() {
  atomic {
    if
    :: asleep[0] -> asleep[0] = false
    :: asleep[1] -> asleep[1] = false
    :: asleep[2] -> asleep[2] = false
    :: else
    fi
  }
}

inline lock() {
  take();
  if
  :: before == 0
  :: else ->
#ifndef NO_WAIT
    /* SPINS times in the program: once or never says the same. */
    if :: take() :: before = 1 fi;
    do
    :: before == 0 -> break
    :: else ->
      takeContended();
      if
      :: before == 0 -> break
      :: else -> wait()
      fi
    od
#else
    skip
#endif
  fi
}

inline unlock() {
#ifdef EARLY_NOTIFY
  if :: word == 2 -> notify() :: else fi;
  word = 0
#else
  atomic { before = word; word = 0 };
  if :: before == 2 -> notify() :: else fi
#endif
}

proctype thread(byte me) {
  byte before, seen, round;
  for (round : 1 .. ROUNDS) {
    lock();
    inside++;
    assert(inside == 1);
    seen = sum;
    sum = seen + 1;
    inside--;
    unlock()
  }
  atomic {
    finished++;
    if
    :: finished == THREADS -> assert(sum == THREADS * ROUNDS && word == 0)
    :: else
    fi
  }
}

init {
  atomic { run thread(0); run thread(1); run thread(2) }
}
