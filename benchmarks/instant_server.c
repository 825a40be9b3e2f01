// A chat server for benchmarks: answers at once, on one thread, so that clients are what is measured.
// usage: instant_server PORT   (127.0.0.1 only; port 0 takes a free one; the port is printed)
// POST .../chat/completions answers; under /down/ with 500. GET /stat tells requests and connections until now.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST 65536
#define MOST 65536

typedef struct { char bytes[LARGEST + 1]; int filled; } Input;
static Input *inputs[MOST];
static long requests, connections;

static const char *ANSWER = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"gpt-4o-mini\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello there, how can I help?\"},"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":7,\"total_tokens\":16}}";
static const char *FAILURE = "{\"error\":{\"message\":\"the server had an error\",\"type\":\"server_error\"}}";

static void reply(int fd, const char *status, const char *body) {
    char head[512 + 1024];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          status, strlen(body), body);
    for (char *at = head; length > 0;) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent <= 0) return;
        at += sent;
        length -= sent;
    }
}

static void answer(int fd, const char *request) {
    char counts[96];
    if (!strncmp(request, "GET /stat", 9)) {
        snprintf(counts, sizeof counts, "{\"requests\":%ld,\"connections\":%ld}", requests, connections);
        reply(fd, "200 OK", counts);
        return;
    }
    requests++;
    if (!strncmp(request, "POST /down/", 11)) reply(fd, "500 Internal Server Error", FAILURE);
    else reply(fd, "200 OK", ANSWER);
}

// Answers all whole requests that are in; returns 0 when the connection is to be closed.
static int serve(int fd) {
    Input *in = inputs[fd];
    ssize_t got = recv(fd, in->bytes + in->filled, LARGEST - in->filled, 0);
    if (got <= 0) return 0;
    in->filled += got;
    for (;;) {
        in->bytes[in->filled] = 0;
        char *end = strstr(in->bytes, "\r\n\r\n");
        if (!end) return in->filled < LARGEST;
        char *field = strcasestr(in->bytes, "\r\ncontent-length:");
        int body = field && field < end ? atoi(field + 17) : 0, whole = end + 4 - in->bytes + body;
        if (whole > LARGEST) return 0;
        if (in->filled < whole) return 1;
        answer(fd, in->bytes);
        memmove(in->bytes, in->bytes + whole, in->filled - whole);
        in->filled -= whole;
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int number = epoll_wait(poll, ready, 256, -1);
        for (int i = 0; i < number; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                if ((fd = accept(listener, 0, 0)) < 0 || fd >= MOST) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                inputs[fd] = calloc(1, sizeof(Input));
                connections++;
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
            } else if (!serve(fd)) {
                free(inputs[fd]);
                close(fd);
            }
        }
    }
}
