/* A consumer of the ring in C, written from docs/shared-memory.md alone.
 *
 *     cc -O2 -o ring_consumer ring_consumer.c && ./ring_consumer SOCKET RANK [current|next-epoch]
 *
 * Prints "SEQUENCE EPOCH STEP SAMPLES SUM" for each batch (SUM of image bytes,
 * labels, indices, partners' labels and weights' bits, modulo 2^64), then "end". Exit status 1 on any error. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 128, WAKE = 256, STATE = 384, MESSAGE_BYTES = 388, MESSAGE = 512, ACK_TAKEN = 16, ACK_WORDS = 64 };

static _Noreturn void fail(const char *why) {
    fprintf(stderr, "ring_consumer: %s\n", why);
    exit(1);
}

static uint8_t *map(int fd, int protection, size_t *bytes) {
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) != 0) fail("a segment is not sealed");
    *bytes = (size_t)status.st_size;
    void *start = mmap(NULL, *bytes, protection, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) fail("a segment cannot be mapped");
    return start;
}

static uint32_t u32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return value; }
static uint64_t u64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static uint64_t load(const uint8_t *at) {
    return atomic_load_explicit((const _Atomic uint64_t *)at, memory_order_acquire);
}
static uint32_t load32(const uint8_t *at) {
    return atomic_load_explicit((const _Atomic uint32_t *)at, memory_order_acquire);
}

static uint32_t crc32c(const uint8_t *bytes, size_t count) {
    uint32_t sum = ~0u;
    while (count--) {
        sum ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (sum & 1 ? 0x82f63b78u : 0);
    }
    return ~sum;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) fail("usage: ring_consumer SOCKET RANK [current|next-epoch]");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address) != 0) fail("no daemon there");

    static char text[128 * 1024 + 1];
    int length = snprintf(text, sizeof text, "{\"protocol\":2,\"rank\":%d,\"start\":\"%s\"}", atoi(argv[2]),
                          argc == 4 ? argv[3] : "current");
    if (send(server, text, (size_t)length, MSG_NOSIGNAL) != length) fail("the daemon does not listen");
    union { struct cmsghdr header; char space[CMSG_SPACE(3 * sizeof(int))]; } control;
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(server, &message, MSG_CMSG_CLOEXEC);
    text[got > 0 ? got : 0] = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    char *first = strstr(text, "\"first\":");
    if (strncmp(text, "{\"joined\":", 10) != 0 || !first || !rights || rights->cmsg_len != CMSG_LEN(3 * sizeof(int)))
        fail(got > 0 ? text : "no answer");
    int fds[3];
    memcpy(fds, CMSG_DATA(rights), sizeof fds);

    size_t data_bytes, ack_bytes;
    const uint8_t *data = map(fds[0], PROT_READ, &data_bytes);
    uint8_t *ack = map(fds[1], PROT_READ | PROT_WRITE, &ack_bytes);
    if (memcmp(data, "DDASRING", 8) != 0 || (u32(data + 8) & 0xffff) != 2) fail("not a ring of version 2");
    if (u32(data + 124) != crc32c(data, 124)) fail("the header is damaged");
    static const size_t element[] = {0, 1, 4, 2, 2};
    uint64_t slots = u32(data + 24), slot_bytes = u64(data + 32), table = u32(data + 12);
    uint64_t sample = element[data[92] <= 4 ? data[92] : 0] * u32(data + 96) * u32(data + 100) * u32(data + 104);
    uint64_t batch = u32(data + 88), labels = (batch * sample + 63) / 64 * 64;
    uint64_t indices = (labels + 8 * batch + 63) / 64 * 64;
    int mixes = data[95];
    uint64_t mixed = mixes ? (indices + 8 * batch + 63) / 64 * 64 : 0;
    uint64_t weights = mixes ? (mixed + 8 * batch + 63) / 64 * 64 : 0;
    uint64_t payload = (table + 128 * slots + 4095) / 4096 * 4096;
    if (payload + slots * slot_bytes != data_bytes || ack_bytes < ACK_WORDS + 8 * slots) fail("sizes do not match");

    uint64_t generation = load(ack);
    for (uint64_t n = strtoull(first + 8, NULL, 10);;) {
        uint32_t wake = load32(data + WAKE), state = load32(data + STATE);
        uint64_t head = load(data + HEAD);
        if (generation == 0 || load(ack) != generation) fail("evicted");
        struct pollfd peer = {.fd = server, .events = POLLIN};
        if (state == 0 && poll(&peer, 1, 0) != 0 && load32(data + STATE) == 0) fail("the daemon died");
        if (head < n && state == 1) break;
        if (head < n && state == 2) {
            fprintf(stderr, "%.*s\n", (int)u32(data + MESSAGE_BYTES), data + MESSAGE);
            fail("the daemon stopped the stream");
        }
        if (head < n) {
            struct timespec tenth = {.tv_nsec = 100 * 1000 * 1000};
            syscall(SYS_futex, data + WAKE, FUTEX_WAIT, wake, &tenth, NULL, 0);
            continue;
        }
        uint64_t slot = (n - 1) % slots, start = payload + slot * slot_bytes;
        const uint8_t *entry = data + table + 128 * slot;
        if (load(entry) != n || u64(entry + 8) != n || u32(entry + 124) != crc32c(entry + 8, 116)) fail("bad descriptor");
        if (u64(entry + 40) != start || u64(entry + 56) != start + labels || u64(entry + 64) != start + indices)
            fail("bad offsets");
        if (mixes && (u64(entry + 96) != start + mixed || u64(entry + 104) != start + weights)) fail("bad offsets");
        atomic_store_explicit((_Atomic uint64_t *)(ack + ACK_TAKEN), n, memory_order_release);
        uint64_t samples = u32(entry + 28), sum = 0;
        for (uint64_t at = 0; at < samples * sample; at++) sum += data[start + at];
        for (uint64_t at = 0; at < samples; at++) sum += u64(data + start + labels + 8 * at) + u64(data + start + indices + 8 * at);
        for (uint64_t at = 0; mixes && at < samples; at++)
            sum += u64(data + start + mixed + 8 * at) + u32(data + start + weights + 4 * at);
        printf("%llu %u %llu %llu %llu\n", (unsigned long long)n, u32(entry + 24), (unsigned long long)u64(entry + 16),
               (unsigned long long)samples, (unsigned long long)sum);
        atomic_store_explicit((_Atomic uint64_t *)(ack + ACK_WORDS + 8 * slot), n, memory_order_release);
        uint64_t one = 1;
        if (write(fds[2], &one, 8) != 8) fail("the eventfd is full");
        n++;
    }
    puts("end");
    return 0;
}
