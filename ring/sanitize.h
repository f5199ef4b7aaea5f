/*
 * Tells the sanitizers what they cannot see by themselves; in other builds all of this is nothing.
 *
 * ck does its atomic accesses in assembly, so ThreadSanitizer sees the data that crosses a ring, a stack or
 * an event count but not the ordering that protects it. Each user of ck names that ordering here: a release
 * before the publishing store and an acquire after the load that observed it, on the same address. So a real
 * race on the data is still reported, where a suppression would hide it.
 *
 * A pool hands out its memory without malloc, so AddressSanitizer must be told which buffers are given back.
 */
#pragma once

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZE_THREAD 1
#endif
#if __has_feature(address_sanitizer)
#define SANITIZE_ADDRESS 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) && !defined(SANITIZE_THREAD)
#define SANITIZE_THREAD 1
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANITIZE_ADDRESS)
#define SANITIZE_ADDRESS 1
#endif

#ifdef SANITIZE_THREAD
#include <sanitizer/tsan_interface.h>

/* Exported by the runtime of both compilers, declared in no header of theirs. */
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

#define TSAN_RELEASE(addr) __tsan_release((void *)(addr))
#define TSAN_ACQUIRE(addr) __tsan_acquire((void *)(addr))
/* Around a ck call that stores plainly between our release and its publishing store. */
#define TSAN_IGNORE_WRITES_BEGIN() AnnotateIgnoreWritesBegin(__FILE__, __LINE__)
#define TSAN_IGNORE_WRITES_END() AnnotateIgnoreWritesEnd(__FILE__, __LINE__)
#else
#define TSAN_RELEASE(addr) ((void)(addr))
#define TSAN_ACQUIRE(addr) ((void)(addr))
#define TSAN_IGNORE_WRITES_BEGIN() ((void)0)
#define TSAN_IGNORE_WRITES_END() ((void)0)
#endif

#ifdef SANITIZE_ADDRESS
#include <sanitizer/asan_interface.h>

#define ASAN_FORBID(addr, len) __asan_poison_memory_region((addr), (len))
#define ASAN_ALLOW(addr, len) __asan_unpoison_memory_region((addr), (len))
#else
#define ASAN_FORBID(addr, len) ((void)(addr), (void)(len))
#define ASAN_ALLOW(addr, len) ((void)(addr), (void)(len))
#endif
