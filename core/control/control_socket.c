#include "core/control/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_BACKLOG 128
/* How often, and how many times, a start looks whether another start has finished. */
#define LOCK_WAIT_STEP_NS (20 * NS_PER_MS)
#define LOCK_WAIT_STEPS 500

static int lock_directory(int fd);
static int remove_stale(const struct sockaddr_un *address);
static void close_fd(int *fd);

int control_socket_claim(struct control_socket *s, const char *ifname)
{
	int err;

	memset(s, 0, sizeof(*s));
	s->fd = s->lock_fd = -1;
	control_address(&s->address, ifname);
	if (mkdir(CONTROL_DIRECTORY, 0700) && errno != EEXIST)
		return -errno;
	s->lock_fd = open(CONTROL_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->lock_fd < 0)
		return -errno;
	/* Two starts at once must not both find the socket stale. The lock goes with the descriptor. */
	err = lock_directory(s->lock_fd);
	if (!err)
		err = remove_stale(&s->address);
	if (err)
		close_fd(&s->lock_fd);
	return err;
}

int control_socket_listen(struct control_socket *s)
{
	struct stat st;
	mode_t old_mask;
	int fd, err;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	old_mask = umask(077);
	err = bind(fd, (struct sockaddr *)&s->address, sizeof(s->address)) ? -errno : 0;
	umask(old_mask);
	if (err) {
		close(fd);
		return err;
	}
	if (lstat(s->address.sun_path, &st) || listen(fd, LISTEN_BACKLOG)) {
		err = -errno;
		unlink(s->address.sun_path);
		close(fd);
		return err;
	}
	s->fd = fd;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	close_fd(&s->lock_fd);
	return 0;
}

bool control_socket_is_ours(const struct control_socket *s)
{
	struct stat st;

	return lstat(s->address.sun_path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

void control_socket_close(struct control_socket *s)
{
	if (s->fd >= 0 && control_socket_is_ours(s))
		unlink(s->address.sun_path);
	close_fd(&s->fd);
	close_fd(&s->lock_fd);
}

/* The wait has an end because whoever may read the directory may lock it for ever. */
static int lock_directory(int fd)
{
	for (unsigned step = 0; flock(fd, LOCK_EX | LOCK_NB); step++) {
		if (errno != EWOULDBLOCK || step == LOCK_WAIT_STEPS)
			return -errno;
		nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_STEP_NS}, NULL);
	}
	return 0;
}

/* Removes the socket file of a daemon that was killed. -EADDRINUSE: somebody listens there. */
static int remove_stale(const struct sockaddr_un *address)
{
	const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err;

	if (probe < 0)
		return -errno;
	err = connect(probe, (const struct sockaddr *)address, sizeof(*address)) ? -errno : 0;
	close(probe);
	switch (err) {
	case 0:
	case -EAGAIN: /* its backlog is full */
		return -EADDRINUSE;
	case -ECONNREFUSED:
		return unlink(address->sun_path) && errno != ENOENT ? -errno : 0;
	case -ENOENT:
		return 0;
	default:
		return err;
	}
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
