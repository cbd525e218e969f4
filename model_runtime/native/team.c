/* A small team of threads, and the choice of an instruction set.
 *
 * A call brings a list of operations that run one after the other; each is cut into tiles that any
 * thread may take. The calling thread works as well, so a call never waits for a thread that has
 * yet to wake: who comes late finds fewer tiles. Only a tile that another thread has begun is
 * waited for.
 *
 * Threads look for work in a loop of bounded length and only while a call is under way; then they
 * sleep. Between calls they cost nothing.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "native.h"

#define MOST_THREADS 64
#define MOST_TILES (1 << 24)
#define TURNS 4000 /* of a waiting loop before sleep: some 50 to 250 microseconds */

static const tile_function *const kernels[INSTRUCTION_SETS] = {
    [PORTABLE] = kernels_portable, [AVX2] = kernels_avx2, [AVX512] = kernels_avx512};

uint64_t native_version(void) {
    const size_t sizes[] = {sizeof(struct product),   sizeof(struct norm),      sizeof(struct gated),
                            sizeof(struct rotation),  sizeof(struct attention), sizeof(struct reduction)};
    uint64_t version = VERSION;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        version = version * 509 + sizes[i];
    return version;
}

int native_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return PORTABLE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    return AVX2;
#else
    return PORTABLE;
#endif
}

static int64_t tiles_of(int64_t kind, const void *arguments) {
    switch (kind) {
    case PRODUCT: return (((const struct product *)arguments)->out + PANEL - 1) / PANEL *
                         ((((const struct product *)arguments)->rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS);
    case NORM: return ((const struct norm *)arguments)->rows;
    case GATED: return ((const struct gated *)arguments)->rows;
    case ROTATION: return ((const struct rotation *)arguments)->rows;
    case ATTENTION: {
        const struct attention *p = arguments;
        int64_t height = attention_height(p);
        return (p->rows + height - 1) / height * p->kv_heads;
    }
    case REDUCTION: return ((const struct reduction *)arguments)->rows;
    default: return -1;
    }
}

/* What is at work now. One word says how many tiles there are and which is the next, so that a
 * thread takes a tile of the operation that it belongs to or none at all. An operation ends when
 * all its tiles are done, hence what a thread reads after it took a tile stays as it is. Each word
 * that threads write has a cache line of its own. */
static struct {
    _Alignas(64) _Atomic uint64_t next; /* tiles << 32 | next tile */
    _Alignas(64) _Atomic int64_t done;
    _Alignas(64) _Atomic uint64_t round; /* one more for each operation */
    _Atomic int working;                 /* a call is under way */
    _Atomic int sleepers;
    _Atomic int caller_sleeps;
    _Alignas(64) tile_function tile;
    const void *arguments;
    int64_t tiles;
} work;

static pthread_mutex_t calls = PTHREAD_MUTEX_INITIALIZER; /* one call has the team at a time */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;  /* for the two conditions */
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static pthread_t helpers[MOST_THREADS];
static int helper_count;
static _Atomic int leaving;

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Sets how this thread rounds; returns how it did. The default mode rounds to nearest and keeps
 * denormals, whatever a library has set for speed. */
static unsigned set_rounding(unsigned mode) {
#if defined(__x86_64__)
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode);
    return before;
#else
    return mode;
#endif
}
#define DEFAULT_MODE 0x1f80u

/* Takes and runs tiles until none is left. */
static int run_tiles(void) {
    int ran = 0;
    for (;;) {
        uint64_t seen = atomic_load(&work.next);
        if ((uint32_t)seen >= seen >> 32)
            return ran;
        uint64_t taken = atomic_fetch_add(&work.next, 1);
        if ((uint32_t)taken >= taken >> 32)
            continue; /* the last tile went to another thread */
        int64_t tiles = work.tiles;
        work.tile(work.arguments, (int64_t)(uint32_t)taken);
        ran = 1;
        if (atomic_fetch_add(&work.done, 1) + 1 == tiles && atomic_load(&work.caller_sleeps)) {
            pthread_mutex_lock(&lock);
            pthread_cond_signal(&finished);
            pthread_mutex_unlock(&lock);
        }
    }
}

static void *help(void *unused) {
    uint64_t round = atomic_load(&work.round);
    int turns = 0;
    set_rounding(DEFAULT_MODE);
    while (!atomic_load(&leaving)) {
        if (run_tiles())
            turns = 0;
        uint64_t now = atomic_load(&work.round);
        if (now != round) {
            round = now;
            turns = 0;
            continue;
        }
        if (atomic_load(&work.working) && turns++ < TURNS) {
            pause_briefly();
            continue;
        }
        pthread_mutex_lock(&lock);
        atomic_fetch_add(&work.sleepers, 1);
        while (atomic_load(&work.round) == round && !atomic_load(&leaving))
            pthread_cond_wait(&more, &lock);
        atomic_fetch_sub(&work.sleepers, 1);
        pthread_mutex_unlock(&lock);
        turns = 0;
    }
    return unused;
}

static void wake_helpers(void) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&more);
    pthread_mutex_unlock(&lock);
}

/* After a fork the child has the calling thread alone; it begins with no helpers. */
static void forget_helpers(void) {
    helper_count = 0;
    work.sleepers = 0;
    work.next = 0;
    pthread_mutex_init(&calls, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&more, NULL);
    pthread_cond_init(&finished, NULL);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_helpers); }

/* Makes the team that many threads, the caller among them; returns how many it has then. */
int native_threads(int threads) {
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&calls);
    if (threads - 1 != helper_count) {
        atomic_store(&leaving, 1);
        wake_helpers();
        for (int i = 0; i < helper_count; i++)
            pthread_join(helpers[i], NULL);
        atomic_store(&leaving, 0);
        for (helper_count = 0; helper_count < threads - 1; helper_count++)
            if (pthread_create(&helpers[helper_count], NULL, help, NULL))
                break; /* fewer threads give the same bits */
    }
    threads = helper_count + 1;
    pthread_mutex_unlock(&calls);
    return threads;
}

static void run_together(tile_function tile, const void *arguments, int64_t tiles) {
    work.tile = tile;
    work.arguments = arguments;
    work.tiles = tiles;
    atomic_store(&work.done, 0);
    atomic_store(&work.next, (uint64_t)tiles << 32);
    atomic_fetch_add(&work.round, 1);
    if (atomic_load(&work.sleepers))
        wake_helpers();
    run_tiles();
    for (int turns = 0; turns < TURNS && atomic_load(&work.done) < tiles; turns++)
        pause_briefly();
    if (atomic_load(&work.done) < tiles) {
        pthread_mutex_lock(&lock);
        atomic_store(&work.caller_sleeps, 1);
        while (atomic_load(&work.done) < tiles)
            pthread_cond_wait(&finished, &lock);
        atomic_store(&work.caller_sleeps, 0);
        pthread_mutex_unlock(&lock);
    }
}

/* Runs operations in their order. Returns 0, or 1 + the place of one that is no operation, before
 * anything has run. A call that finds the team at work for another one runs alone. */
int native_run(const struct operation *operations, int64_t count, int instruction_set) {
    const tile_function *of = kernels[instruction_set];
    for (int64_t i = 0; i < count; i++) {
        int64_t tiles = tiles_of(operations[i].kind, operations[i].arguments);
        if (tiles < 0 || tiles > MOST_TILES)
            return (int)i + 1;
    }
    unsigned rounding = set_rounding(DEFAULT_MODE);
    int together = pthread_mutex_trylock(&calls) == 0;
    if (together && helper_count)
        atomic_store(&work.working, 1);
    for (int64_t i = 0; i < count; i++) {
        const void *arguments = operations[i].arguments;
        int64_t tiles = tiles_of(operations[i].kind, arguments);
        if (together && helper_count && tiles > 1)
            run_together(of[operations[i].kind], arguments, tiles);
        else
            for (int64_t tile = 0; tile < tiles; tile++)
                of[operations[i].kind](arguments, tile);
    }
    if (together) {
        atomic_store(&work.working, 0);
        pthread_mutex_unlock(&calls);
    }
    set_rounding(rounding);
    return 0;
}
