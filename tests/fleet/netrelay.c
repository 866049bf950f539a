/* netrelay TAP1 TAP2 DELAY_MS LOSS_PERCENT RATE_MBIT: a link emulator in user space, for kernels without sch_netem.
 * Frames read from one TAP are written to the other after the one-way delay, dropped with the given probability, and
 * paced to the rate per direction, with a bounded queue (drop tail) like a real switch port. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#define QMAX 16384
struct pkt { double due; int len; unsigned char b[1600]; };
struct dir { struct pkt *q; unsigned h, n; double last, free; } d[2];
static int fd[2];
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static int tap(const char *name) {
  struct ifreq r; memset(&r, 0, sizeof r);
  int f = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (f < 0) { perror("/dev/net/tun"); exit(1); }
  r.ifr_flags = IFF_TAP | IFF_NO_PI; strncpy(r.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(f, TUNSETIFF, &r) < 0) { perror("TUNSETIFF"); exit(1); }
  return f;
}
int main(int c, char **v) {
  if (c != 6) { fprintf(stderr, "usage: netrelay TAP1 TAP2 DELAY_MS LOSS_PERCENT RATE_MBIT\n"); return 2; }
  double delay = atof(v[3]) / 1e3, loss = atof(v[4]) / 100, bps = atof(v[5]) * 1e6;
  double maxq = bps > 0 ? 0.2 : 1e9; /* at most 200 ms of backlog when paced */
  for (int i = 0; i < 2; i++) { fd[i] = tap(v[1 + i]); d[i].q = calloc(QMAX, sizeof(struct pkt)); }
  srand48(getpid());
  for (;;) {
    double t = now(), next = 1;
    for (int i = 0; i < 2; i++)
      while (d[i].n) {
        struct pkt *p = &d[i].q[d[i].h];
        if (p->due > t) { if (p->due - t < next) next = p->due - t; break; }
        if (write(fd[!i], p->b, p->len) < 0 && errno == EAGAIN) { next = 0.0005; break; }
        d[i].h = (d[i].h + 1) % QMAX; d[i].n--;
      }
    struct pollfd pf[2] = {{fd[0], POLLIN, 0}, {fd[1], POLLIN, 0}};
    struct timespec ts = {(time_t)next, (long)((next - (time_t)next) * 1e9)};
    ppoll(pf, 2, &ts, NULL);
    t = now();
    for (int i = 0; i < 2; i++)
      for (int k = 0; k < 64; k++) {
        unsigned char b[1600]; int n = read(fd[i], b, sizeof b);
        if (n <= 0) break;
        if (loss > 0 && drand48() < loss) continue;
        double s = d[i].free > t ? d[i].free : t;
        if (d[i].n == QMAX || s - t > maxq) continue;
        d[i].free = bps > 0 ? s + n * 8 / bps : t;
        double due = d[i].free + delay;
        if (due < d[i].last) due = d[i].last; /* keep order */
        d[i].last = due;
        struct pkt *p = &d[i].q[(d[i].h + d[i].n++) % QMAX];
        p->due = due; p->len = n; memcpy(p->b, b, n);
      }
  }
}
