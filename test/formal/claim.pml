/*
 * The protocol of recording and copying over one bitmap: writers write to a disk and then set, copiers
 * claim (which clears), then read, and set again when they fail. A word of two granules with the count
 * of its bits stands for the bitmap, for that is the smallest thing in which neighbours can lose each
 * other's bits. The lock is what lock.pml shows it to be: what it guards is one `atomic` here.
 *
 * Shown: whenever nothing is under way, a granule that is clean was read after it was last written;
 * nobody claims what was not set since the last claim; the count is that of the bits.
 *
 * Not shown, since it is not so: that the newest content is the last to reach the target, when two
 * copiers may hold one granule at once (one claimed it, it was set, the other claimed it). TARGET asks for
 * that as well: it holds with COPIERS=1, and is refuted with 2. Whoever records into the bitmap that he
 * copies from must keep a second request from overtaking a first one on the same granule.
 *
 * Each other -D breaks one thing, and must be refuted: LATE_CLEAR, EARLY_SET, NO_RETURN, SPLIT_CLAIM,
 * UNLOCKED_SET, EARLY_UNLOCK.
 */
#ifndef COPIERS
#define COPIERS 2
#endif
#define WRITERS 2
#define WRITES 2
#define FAILURES 1

byte word;
byte count;
byte version[2];
byte target[2];
byte newest[2];
byte sets[2];
byte claims[2];
byte writing = WRITERS;
byte busy;
byte failures;

#define IDLE (writing == 0 && busy == 0)
#define BIT(g) (1 << (g))
#define DIRTY(g) ((word & BIT(g)) != 0)

/* One call of Bitmap.set. */
inline set(g) {
#ifdef UNLOCKED_SET
  atomic { old = word; sets[g]++ };
  atomic { word = old | BIT(g); if :: (old & BIT(g)) == 0 -> count++ :: else fi }
#else
#ifdef EARLY_UNLOCK
  /* The lock is given back before the last store: the count comes after. */
  atomic { old = word; word = old | BIT(g); sets[g]++; grown = count };
  if :: (old & BIT(g)) == 0 -> count = grown + 1 :: else fi
#else
  atomic {
    old = word;
    word = old | BIT(g);
    sets[g]++;
    if :: (old & BIT(g)) == 0 -> count++ :: else fi
  }
#endif
#endif
}

inline clear(g) {
  word = word & (3 - BIT(g));
  count--
}

inline recorded(g) {
#ifdef EARLY_SET
  set(g);
  version[g]++
#else
  version[g]++;
  set(g)
#endif
}

proctype writer() {
  byte i, old, grown;
  for (i : 1 .. WRITES) {
    if
    :: recorded(0)
    :: recorded(1)
    fi
  }
  writing--
}

inline read(g) {
  atomic {
    content = version[g];
    if :: content > newest[g] -> newest[g] = content :: else fi
  }
}

/* The body of a worker for one window: read and write, or give it back. */
inline move(g) {
  if
  :: read(g); target[g] = content
  :: atomic { failures < FAILURES -> failures++ };
#ifndef NO_RETURN
    set(g)
#else
    skip
#endif
  fi
}

inline copyOne(g) {
#ifdef LATE_CLEAR
  atomic { DIRTY(g) -> busy++; claims[g]++ };
  move(g);
  atomic { if :: DIRTY(g) -> clear(g) :: else fi; busy-- }
#else
#ifdef SPLIT_CLAIM
  atomic { DIRTY(g) -> busy++ };
  atomic { if :: DIRTY(g) -> clear(g) :: else fi; claims[g]++ };
  assert(claims[g] <= sets[g]);
  move(g);
  busy--
#else
  atomic { DIRTY(g) -> clear(g); busy++; claims[g]++ };
  assert(claims[g] <= sets[g]);
  move(g);
  busy--
#endif
#endif
}

proctype copier() {
  byte content, old, grown;
  do
  :: copyOne(0)
  :: copyOne(1)
  :: atomic { IDLE && word == 0 -> break }
  od
}

inline check(g) {
  assert(DIRTY(g) || newest[g] == version[g]);
#ifdef TARGET
  assert(DIRTY(g) || target[g] == version[g]);
#endif
}

/* Looks at every moment in which nothing is under way, the last one included. */
proctype observer() {
  atomic {
    IDLE;
    check(0);
    check(1);
    assert(count == (word & 1) + (word >> 1))
  }
}

init {
  byte i;
  atomic {
    for (i : 1 .. WRITERS) { run writer() }
    for (i : 1 .. COPIERS) { run copier() }
    run observer()
  }
}
