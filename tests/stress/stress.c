#include "tests/stress/stress.h"

#include <errno.h>
#include <time.h>

#define STANDSTILL_S 20

static struct {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	const char *what;
	const counter_t *progress;
} watch = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

uint64_t stress_rounds(uint64_t normal)
{
	const char *text = getenv("STRESS_ROUNDS");
	char *end;
	uint64_t rounds;

	if (text == NULL) {
#ifdef SANITIZE_THREAD
		return normal / 10;
#else
		return normal;
#endif
	}
	rounds = strtoull(text, &end, 10);
	REQUIRE(rounds > 0 && *end == '\0', "STRESS_ROUNDS is \"%s\", not a number above 0", text);
	return rounds;
}

static void *watch_progress(void *arg)
{
	uint64_t last = counter_read(watch.progress);

	pthread_mutex_lock(&watch.mutex);
	while (!watch.done) {
		struct timespec until;
		uint64_t now;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += STANDSTILL_S;
		if (pthread_cond_timedwait(&watch.cond, &watch.mutex, &until) != ETIMEDOUT)
			continue;
		now = counter_read(watch.progress);
		REQUIRE(now != last, "%s: no progress in %d s after %llu rounds: a wake-up was missed",
			watch.what, STANDSTILL_S, (unsigned long long)now);
		last = now;
	}
	pthread_mutex_unlock(&watch.mutex);
	return NULL;
}

void stress_watch(const char *what, const counter_t *progress)
{
	watch.what = what;
	watch.progress = progress;
	watch.done = false;
	watch.thread = stress_start(watch_progress, NULL);
}

void stress_unwatch(void)
{
	pthread_mutex_lock(&watch.mutex);
	watch.done = true;
	pthread_cond_signal(&watch.cond);
	pthread_mutex_unlock(&watch.mutex);
	stress_join(watch.thread);
}

pthread_t stress_start(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, run, arg);

	REQUIRE(r == 0, "%s", strerror(r));
	return thread;
}

void stress_join(pthread_t thread)
{
	int r = pthread_join(thread, NULL);

	REQUIRE(r == 0, "%s", strerror(r));
}
