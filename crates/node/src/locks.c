/* File locks for a process with two copies of SQLite.
 *
 * An app in Node has a copy of its own (better-sqlite3, node-sqlite3), and this addon has another.
 * SQLite's POSIX locks belong to the process: two copies do not see each other's, so both would
 * write at once, and one that closes a file drops the locks of the other
 * (https://sqlite.org/howtocorrupt.html, 2.2.1). Here this copy takes open file description locks
 * instead, which conflict with the locks of everybody else, in this process or not.
 *
 * SQLite counts on locks of the process within one copy, so all locks on a file are taken through
 * one descriptor of it, `locks`. And because closing any descriptor of a file drops the POSIX locks
 * of the process on it, a descriptor that SQLite closes is kept for the next time that it opens the
 * file, until nobody can have it open: when the file is deleted. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite3.h"

#ifdef F_OFD_SETLK

struct idle {
  int fd;
  int access;
  struct idle *next;
};

struct file {
  dev_t device;
  ino_t inode;
  int locks;     /* the descriptor that all locks are taken through */
  unsigned used; /* how many descriptors SQLite has */
  struct idle *idle;
  struct file *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;

static struct file *find(const struct stat *of) {
  struct file *file = files;
  while (file && (file->device != of->st_dev || file->inode != of->st_ino)) file = file->next;
  return file;
}

static void forget(struct file *gone) {
  struct file **at = &files;
  while (*at != gone) at = &(*at)->next;
  *at = gone->next;
  while (gone->idle) {
    struct idle *idle = gone->idle;
    gone->idle = idle->next;
    close(idle->fd);
    free(idle);
  }
  close(gone->locks);
  free(gone);
}

/* Lets go of files that were deleted and that SQLite has not open. */
static void forget_deleted(void) {
  struct file *file = files;
  while (file) {
    struct file *next = file->next;
    struct stat now;
    if (!file->used && fstat(file->locks, &now) == 0 && now.st_nlink == 0) forget(file);
    file = next;
  }
}

static int ends_with(const char *path, const char *end) {
  size_t length = strlen(path), wanted = strlen(end);
  return length >= wanted && strcmp(path + length - wanted, end) == 0;
}

/* Journals, logs and temporary files are never locked. */
static int is_locked_ever(const char *path, int flags) {
  return !(flags & (O_EXCL | O_TRUNC)) && !ends_with(path, "-wal") && !ends_with(path, "-journal");
}

/* Notes an open descriptor; 0 when there is no memory or no descriptor left. */
static int note(const char *path, const struct stat *of) {
  struct file *file = find(of);
  if (!file) {
    struct stat again;
    int locks = open(path, O_RDWR | O_CLOEXEC);
    if (locks < 0) locks = open(path, O_RDONLY | O_CLOEXEC);
    if (locks < 0) return 0;
    file = malloc(sizeof *file);
    if (!file || fstat(locks, &again) || again.st_dev != of->st_dev || again.st_ino != of->st_ino) {
      /* Another file has the name by now: SQLite tries again. */
      free(file);
      close(locks);
      errno = EINTR;
      return 0;
    }
    *file = (struct file){of->st_dev, of->st_ino, locks, 0, NULL, files};
    files = file;
  }
  file->used++;
  return 1;
}

/* An idle descriptor of the file at `path`, or -1. */
static int reuse(const char *path, int flags) {
  struct stat of;
  struct file *file = stat(path, &of) == 0 ? find(&of) : NULL;
  struct idle **at = file ? &file->idle : NULL;
  while (at && *at) {
    struct idle *idle = *at;
    if (idle->access == (flags & O_ACCMODE)) {
      int fd = idle->fd;
      *at = idle->next;
      free(idle);
      file->used++;
      return fd;
    }
    at = &idle->next;
  }
  return -1;
}

static int open_apart(const char *path, int flags, int mode) {
  struct stat of;
  int fd;
  if (!is_locked_ever(path, flags)) return open(path, flags, mode);
  pthread_mutex_lock(&mutex);
  forget_deleted();
  fd = reuse(path, flags);
  if (fd < 0) {
    fd = open(path, flags, mode);
    if (fd >= 0 && fstat(fd, &of) == 0 && S_ISREG(of.st_mode) && !note(path, &of)) {
      int why = errno;
      close(fd);
      fd = -1;
      errno = why;
    }
  }
  pthread_mutex_unlock(&mutex);
  return fd;
}

static int close_apart(int fd) {
  struct stat of;
  struct file *file = NULL;
  struct idle *idle = NULL;
  int known;
  pthread_mutex_lock(&mutex);
  known = fstat(fd, &of) == 0;
  if (known) file = find(&of);
  if (file) {
    file->used--;
    if (!file->used) {
      /* Closing the last descriptor would have dropped the locks that SQLite still had. */
      struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
      fcntl(file->locks, F_OFD_SETLK, &all);
    }
    if (of.st_nlink) idle = malloc(sizeof *idle);
    if (idle) {
      *idle = (struct idle){fd, fcntl(fd, F_GETFL) & O_ACCMODE, file->idle};
      file->idle = idle;
    } else if (!of.st_nlink && !file->used) {
      forget(file);
    }
  }
  pthread_mutex_unlock(&mutex);
  /* Without memory for a note the descriptor stays open, which harms nobody's locks. */
  if (idle || (file && of.st_nlink)) return 0;
  return close(fd);
}

static int fcntl_apart(int fd, int command, ...) {
  va_list rest;
  struct flock *lock;
  struct stat of;
  int number, through = fd;
  va_start(rest, command);
  if (command != F_SETLK && command != F_SETLKW && command != F_GETLK) {
    number = va_arg(rest, int);
    va_end(rest);
    return fcntl(fd, command, number);
  }
  lock = va_arg(rest, struct flock *);
  va_end(rest);
  pthread_mutex_lock(&mutex);
  if (fstat(fd, &of) == 0) {
    struct file *file = find(&of);
    if (file) through = file->locks;
  }
  pthread_mutex_unlock(&mutex);
  lock->l_pid = 0;
  if (command == F_GETLK) return fcntl(through, F_OFD_GETLK, lock);
  return fcntl(through, command == F_SETLK ? F_OFD_SETLK : F_OFD_SETLKW, lock);
}

/* Has this copy of SQLite lock files in this way; before it opens the first one. */
int syncline_locks_apart(void) {
  sqlite3_vfs *vfs = sqlite3_vfs_find("unix");
  if (!vfs || vfs->iVersion < 3) return SQLITE_ERROR;
  int result = vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)open_apart);
  if (result == SQLITE_OK) {
    result = vfs->xSetSystemCall(vfs, "close", (sqlite3_syscall_ptr)close_apart);
  }
  if (result == SQLITE_OK) {
    result = vfs->xSetSystemCall(vfs, "fcntl", (sqlite3_syscall_ptr)fcntl_apart);
  }
  return result;
}

#else

/* A system without such locks: a second copy of SQLite would not be safe. */
int syncline_locks_apart(void) { return SQLITE_NOLFS; }

#endif
