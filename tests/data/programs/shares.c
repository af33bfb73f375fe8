/* Does 50, 30 and 20 parts of the same work in three functions, in turns of about 0.1 s, so that a
 * profile of some seconds shows 50:30:20 whatever share of a CPU the program gets. */
#define UNIT 700000UL

static volatile unsigned long sink;

#define WORK(parts)                                                                                \
    do {                                                                                           \
        unsigned long state = sink + 1;                                                            \
        /* Leaf functions have a frame pointer only when they use it. */                           \
        __asm__ volatile("" : : "r"(__builtin_frame_address(0)));                                  \
        for (unsigned long i = 0; i < (parts) * UNIT; i++) {                                       \
            state = state * 2862933555777941757UL + 3037000493UL;                                  \
            __asm__ volatile("" : "+r"(state));                                                    \
        }                                                                                          \
        sink = state;                                                                              \
    } while (0)

__attribute__((noinline)) void half(void) { WORK(50); }
__attribute__((noinline)) void third(void) { WORK(30); }
__attribute__((noinline)) void fifth(void) { WORK(20); }

__attribute__((noinline)) void turn(void) {
    half();
    third();
    fifth();
    __asm__ volatile("");
}

int main(void) {
    for (;;) {
        turn();
    }
}
