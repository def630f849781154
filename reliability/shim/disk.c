/*
 * A disk between a program and its files (LD_PRELOAD, Linux): it can lose power, run full and fail.
 *
 * Writes go through to the files at once, so that the program and others read what was written, but
 * what no fsync has covered is remembered. When the power is cut, each file goes back to what was
 * synced, and a random choice of the rest is applied: whole writes or some of their 512-byte
 * sectors, later ones without earlier ones; a file may be longer than what reached it. New, renamed
 * and removed names that no fsync of their folder has covered are undone, back to a random one of
 * them. Then the process ends.
 *
 * Only regular files below $DISK_FOLDER count. The shared memory of SQLite (-shm) does not: it is
 * mapped, and no power cut leaves anything of it that is used. Not modelled: new folders that are
 * lost, sectors larger than 512 bytes, a disk that lies about fsync (but see `lies`).
 *
 * An fsync that fails gives up what it was to write, as Linux does: programs still read it, no later
 * fsync covers it, and a power cut loses it.
 *
 * $DISK_CONTROL is a file of this layout, read and written by the harness while the program runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE, SYNC, READ, OPEN, NAME, KINDS };
struct control {
  uint64_t calls[KINDS];  /* calls of each kind so far */
  uint64_t fail_kinds;    /* bit set of the kinds that fail; 0: none */
  uint64_t fail_errno;
  int64_t fail_after;     /* calls of these kinds that still work */
  int64_t fail_times;     /* how many fail then; below zero: all, until this is changed */
  uint64_t failed;        /* calls that failed so far */
  int64_t cut_after;      /* changing calls until the power is cut; below zero: never */
  uint64_t cut_now;       /* not zero: cut */
  uint64_t seed;          /* of what survives */
  uint64_t lies;          /* not zero: fsync does nothing */
  uint64_t unsynced;      /* told at the cut: changes that no fsync had covered */
  uint64_t kept;          /* and how many of them reached the disk */
  uint64_t data_syncs;    /* calls of fdatasync so far */
};
static struct control no_control, *control = &no_control;
static char folder[PATH_MAX];
static size_t folder_length;
static uint64_t seed;

#define SECTOR 512
#define FDS 65536
struct change { off_t at; size_t length, old_length; off_t old_size; int is_truncation, is_doomed; char *old, *new; struct change *before, *after; };
struct file { ino_t inode; dev_t device; int fd, is_folder, is_gone; char *path; struct change *first, *last; struct file *next; };
/* One changed name: MADE path; REMOVED path (kept as `other`); MOVED other to path (what path was kept as `kept`). */
struct name { enum { MADE, REMOVED, MOVED } what; char *path, *other, *kept, *folder; struct name *before, *after; };

static struct file *files, *by_fd[FDS];
static struct name *first_name, *last_name;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned kept_names;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int), (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static ssize_t (*real_write)(int, const void *, size_t), (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t), (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_unlink)(const char *), (*real_unlinkat)(int, const char *, int);
static int (*real_rename)(const char *, const char *);
static int (*real_link)(const char *, const char *), (*real_linkat)(int, const char *, int, const char *, int);
static ssize_t (*real_sendfile)(int, int, off_t *, size_t);
static ssize_t (*real_copy_file_range)(int, off_t *, int, off_t *, size_t, unsigned);

static void *memory(size_t n) {
  void *p = calloc(1, n ? n : 1);
  if (!p) abort();
  return p;
}
static char *copy(const char *text) { return strcpy(memory(strlen(text) + 1), text); }
static uint64_t chance(uint64_t below) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return below ? seed % below : 0;
}

/* The absolute path if it is below the folder and counts; else null. */
static int counts(const char *path) {
  size_t n = strlen(path);
  return folder_length && strncmp(path, folder, folder_length) == 0
      && (path[folder_length] == '/' || path[folder_length] == 0)
      && !(n > 4 && strcmp(path + n - 4, "-shm") == 0);
}
static const char *absolute(const char *path, char *buffer) {
  if (path[0] == '/') return path;
  if (!getcwd(buffer, PATH_MAX / 2)) return path;
  size_t n = strlen(buffer);
  snprintf(buffer + n, PATH_MAX - n, "/%s", path);
  return buffer;
}
static char *folder_of(const char *path) {
  char *result = copy(path), *slash = strrchr(result, '/');
  if (slash) *slash = 0;
  return result;
}

static struct file *tracked(int fd) { return fd >= 0 && fd < FDS ? by_fd[fd] : NULL; }

static void forget_change(struct file *file, struct change *change) {
  if (change->before) change->before->after = change->after; else file->first = change->after;
  if (change->after) change->after->before = change->before; else file->last = change->before;
  free(change->old); free(change->new); free(change);
}
static void remember(struct file *file, off_t at, const void *bytes, size_t length, int is_truncation) {
  struct stat is;
  if (fstat(file->fd, &is)) return;
  struct change *change = memory(sizeof *change);
  change->at = at; change->length = length; change->old_size = is.st_size; change->is_truncation = is_truncation;
  size_t old = is_truncation ? (is.st_size > at ? (size_t)(is.st_size - at) : 0) : length;
  change->old = memory(old);
  ssize_t got = real_pread(file->fd, change->old, old, at);
  change->old_length = got > 0 ? (size_t)got : 0;
  if (!is_truncation) { change->new = memory(length); memcpy(change->new, bytes, length); }
  change->before = file->last;
  if (file->last) file->last->after = change; else file->first = change;
  file->last = change;
}
/* A change reaches the disk: what a failed fsync gave up below it is not what a cut goes back to. */
static void settle(struct file *file, struct change *change) {
  for (struct change *doomed = file->first; doomed && doomed != change; doomed = doomed->after) {
    if (!doomed->is_doomed) continue;
    off_t from = doomed->at > change->at ? doomed->at : change->at;
    off_t end = change->is_truncation ? doomed->at + (off_t)doomed->old_length : change->at + (off_t)change->length;
    if (change->is_truncation) {
      if (change->at < doomed->old_size) doomed->old_size = change->at;
      if (from < end) doomed->old_length = (size_t)(from - doomed->at);
      continue;
    }
    if (end > doomed->old_size) doomed->old_size = end;
    if (doomed->is_truncation) continue;
    if (end > doomed->at + (off_t)doomed->length) end = doomed->at + (off_t)doomed->length;
    if (from >= end) continue;
    size_t needed = (size_t)(end - doomed->at);
    if (needed > doomed->old_length) {
      char *longer = memory(doomed->length);
      memcpy(longer, doomed->old, doomed->old_length);
      free(doomed->old);
      doomed->old = longer; doomed->old_length = needed;
    }
    memcpy(doomed->old + (from - doomed->at), change->new + (from - change->at), (size_t)(end - from));
  }
  forget_change(file, change);
}
static void settle_all(struct file *file) {
  for (struct change *change = file->first, *after; change; change = after) {
    after = change->after;
    if (!change->is_doomed) settle(file, change);
  }
}
static void forget_file(struct file *file) {
  while (file->first) forget_change(file, file->first);
  for (struct file **at = &files; *at; at = &(*at)->next)
    if (*at == file) { *at = file->next; break; }
  for (int fd = 0; fd < FDS; fd++) if (by_fd[fd] == file) by_fd[fd] = NULL;
  real_close(file->fd); free(file->path); free(file);
}
static struct name *changed_name(int what, const char *path, const char *other, const char *kept) {
  struct name *name = memory(sizeof *name);
  name->what = what; name->path = copy(path); name->folder = folder_of(path);
  if (other) name->other = copy(other);
  if (kept) name->kept = copy(kept);
  name->before = last_name;
  if (last_name) last_name->after = name; else first_name = name;
  last_name = name;
  return name;
}
static void forget_name(struct name *name) {
  const char *kept = name->what == REMOVED ? name->other : name->kept;
  if (kept) real_unlink(kept);
  if (name->before) name->before->after = name->after; else first_name = name->after;
  if (name->after) name->after->before = name->before; else last_name = name->before;
  free(name->path); free(name->other); free(name->kept); free(name->folder); free(name);
}
/* A second name for a file that is about to lose its own. */
static int keep(const char *path, char *kept) {
  struct stat is;
  if (lstat(path, &is) || !S_ISREG(is.st_mode)) return 0;
  char *parent = folder_of(path);
  snprintf(kept, PATH_MAX, "%s/.kept-%d-%u", parent, getpid(), kept_names++);
  free(parent);
  return real_link(path, kept) == 0;
}

static void cut(void) {
  uint64_t unsynced = 0, kept = 0;
  static const unsigned odds[] = {0, 10, 50, 90, 100};
  unsigned odd = odds[chance(5)];
  for (struct file *file = files; file; file = file->next) {
    for (struct change *change = file->last; change; change = change->before) {
      unsynced++;
      real_pwrite(file->fd, change->old, change->old_length, change->at);
      real_ftruncate(file->fd, change->old_size);
    }
    for (struct change *change = file->first; change; change = change->after) {
      if (change->is_doomed || chance(100) >= odd) continue;
      kept++;
      if (change->is_truncation) { real_ftruncate(file->fd, change->at); continue; }
      int is_torn = chance(4) == 0;
      for (size_t done = 0; done < change->length;) {
        size_t sector = SECTOR - (size_t)((change->at + (off_t)done) % SECTOR);
        if (sector > change->length - done) sector = change->length - done;
        if (!is_torn || chance(2)) real_pwrite(file->fd, change->new + done, sector, change->at + (off_t)done);
        done += sector;
      }
    }
    struct stat is;
    if (file->last && chance(4) == 0 && fstat(file->fd, &is) == 0 && is.st_size < file->last->old_size)
      real_ftruncate(file->fd, file->last->old_size);
  }
  uint64_t names = 0;
  for (struct name *name = first_name; name; name = name->after) names++;
  for (uint64_t undone = chance(names + 1); undone && last_name; undone--) {
    struct name *name = last_name;
    if (name->what == MADE) real_unlink(name->path);
    if (name->what == REMOVED) real_rename(name->other, name->path);
    if (name->what == MOVED) {
      real_rename(name->path, name->other);
      if (name->kept) real_rename(name->kept, name->path);
    }
    unsynced++;
    last_name = name->before;
    if (last_name) last_name->after = NULL; else first_name = NULL;
  }
  for (struct name *name = first_name; name; name = name->after) {
    const char *extra = name->what == REMOVED ? name->other : name->kept;
    unsynced++; kept++;
    if (extra) real_unlink(extra);
  }
  control->unsynced = unsynced;
  control->kept = kept;
  _exit(137);
}

/* Counts a call; not zero: it fails with this errno. The lock is held. */
static int call(int kind) {
  control->calls[kind]++;
  if (kind != READ && kind != OPEN && control->cut_after >= 0 && control->cut_after-- == 0) cut();
  if (!(control->fail_kinds & (1u << kind)) || control->fail_times == 0) return 0;
  if (control->fail_after > 0) { control->fail_after--; return 0; }
  if (control->fail_times > 0) control->fail_times--;
  control->failed++;
  return (int)control->fail_errno;
}
static int fails(int kind) {
  int error = call(kind);
  if (error) errno = error;
  return error;
}
#define LOCK pthread_mutex_lock(&lock)
#define UNLOCK pthread_mutex_unlock(&lock)
#define RETURN_IF(kind) do { if (fails(kind)) { UNLOCK; return -1; } } while (0)

static void *watch(void *unused) {
  struct timespec pause = {0, 500000};
  for (;;) {
    nanosleep(&pause, NULL);
    if (control->cut_now) { LOCK; cut(); }
  }
  return unused;
}

__attribute__((constructor)) static void start(void) {
#define FIND(name, symbol) *(void **)&real_##name = dlsym(RTLD_NEXT, symbol)
  FIND(open, "open64"); FIND(openat, "openat64"); FIND(close, "close"); FIND(fsync, "fsync");
  FIND(fdatasync, "fdatasync"); FIND(ftruncate, "ftruncate64"); FIND(write, "write"); FIND(pwrite, "pwrite64");
  FIND(read, "read"); FIND(pread, "pread64"); FIND(writev, "writev"); FIND(unlink, "unlink");
  FIND(unlinkat, "unlinkat"); FIND(rename, "rename"); FIND(sendfile, "sendfile64");
  FIND(link, "link"); FIND(linkat, "linkat"); FIND(copy_file_range, "copy_file_range");
  const char *where = getenv("DISK_FOLDER"), *with = getenv("DISK_CONTROL");
  if (!where || !with) return;
  snprintf(folder, sizeof folder, "%s", where);
  int fd = real_open(with, O_RDWR);
  if (fd < 0) { perror("DISK_CONTROL"); _exit(98); }
  void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) { perror("DISK_CONTROL"); _exit(98); }
  control = at;
  seed = control->seed * 2654435769u + 88172645463325252u;
  for (int i = 0; i < 8; i++) chance(1);
  folder_length = strlen(folder);
  pthread_t thread;
  if (pthread_create(&thread, NULL, watch, NULL)) _exit(98);
}

static void opened(int fd, int existed) {
  char link_path[64], path[PATH_MAX];
  snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link_path, path, sizeof path - 1);
  if (n <= 0 || fd >= FDS) return;
  path[n] = 0;
  struct stat is;
  if (!counts(path) || fstat(fd, &is) || !(S_ISREG(is.st_mode) || S_ISDIR(is.st_mode))) return;
  struct file *file = files;
  while (file && !(file->inode == is.st_ino && file->device == is.st_dev)) file = file->next;
  if (!file) {
    file = memory(sizeof *file);
    file->inode = is.st_ino; file->device = is.st_dev; file->is_folder = S_ISDIR(is.st_mode); file->path = copy(path);
    /* Never closed while the file has a name: closing any descriptor would drop SQLite's locks. */
    file->fd = real_open(link_path, file->is_folder ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CLOEXEC);
    if (file->fd < 0) { free(file->path); free(file); return; }
    file->next = files; files = file;
  }
  by_fd[fd] = file;
  if (!existed && !file->is_folder) changed_name(MADE, path, NULL, NULL);
}
static int do_open(int at, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *full = at == AT_FDCWD ? absolute(path, buffer) : path;
  if (!folder_length || !counts(full)) return real_openat(at, path, flags, mode);
  LOCK;
  RETURN_IF(OPEN);
  int existed = access(full, F_OK) == 0;
  int fd = real_openat(at, path, existed ? flags & ~O_TRUNC : flags, mode);
  if (fd >= 0) {
    opened(fd, existed);
    struct file *file = tracked(fd);
    if (existed && (flags & O_TRUNC)) {
      if (file) remember(file, 0, NULL, 0, 1);
      real_ftruncate(fd, 0);
    }
  }
  int error = errno;
  UNLOCK;
  errno = error;
  return fd;
}
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int close(int fd) {
  if (tracked(fd)) { LOCK; by_fd[fd] = NULL; UNLOCK; }
  return real_close(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  struct file *file = tracked(fd);
  if (!file) return real_write(fd, bytes, length);
  LOCK;
  RETURN_IF(WRITE);
  off_t at = lseek(fd, 0, SEEK_CUR);
  if (fcntl(fd, F_GETFL) & O_APPEND) at = lseek(fd, 0, SEEK_END);
  remember(file, at, bytes, length, 0);
  ssize_t done = real_write(fd, bytes, length);
  UNLOCK;
  return done;
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
  struct file *file = tracked(fd);
  if (!file) return real_pwrite(fd, bytes, length, at);
  LOCK;
  RETURN_IF(WRITE);
  remember(file, at, bytes, length, 0);
  ssize_t done = real_pwrite(fd, bytes, length, at);
  UNLOCK;
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (!tracked(fd)) return real_writev(fd, parts, count);
  ssize_t all = 0;
  for (int i = 0; i < count; i++) {
    ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
    if (done < 0) return all ? all : -1;
    all += done;
    if ((size_t)done < parts[i].iov_len) break;
  }
  return all;
}
int ftruncate64(int fd, off_t length) {
  struct file *file = tracked(fd);
  if (!file) return real_ftruncate(fd, length);
  LOCK;
  RETURN_IF(WRITE);
  remember(file, length, NULL, 0, 1);
  int done = real_ftruncate(fd, length);
  UNLOCK;
  return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int do_sync(int fd, int (*real)(int)) {
  struct file *file = tracked(fd);
  if (!file) return real(fd);
  LOCK;
  if (fails(SYNC)) {
    /* As Linux does: what could not be written is given up, and the next fsync knows nothing of it. */
    for (struct change *change = file->first; change; change = change->after) change->is_doomed = 1;
    UNLOCK;
    return -1;
  }
  if (control->lies) { UNLOCK; return 0; }
  settle_all(file);
  if (file->is_folder)
    for (struct name *name = first_name, *after; name; name = after) {
      after = name->after;
      if (strcmp(name->folder, file->path)) continue;
      if (name->what == REMOVED)
        for (struct file *gone = files, *next; gone; gone = next) {
          next = gone->next;
          if (gone->is_gone && strcmp(gone->path, name->path) == 0) forget_file(gone);
        }
      forget_name(name);
    }
  UNLOCK;
  return 0;
}
int fsync(int fd) { return do_sync(fd, real_fsync); }
int fdatasync(int fd) {
  if (tracked(fd)) { LOCK; control->data_syncs++; UNLOCK; }
  return do_sync(fd, real_fdatasync);
}

ssize_t read(int fd, void *bytes, size_t length) {
  if (tracked(fd)) { LOCK; RETURN_IF(READ); UNLOCK; }
  return real_read(fd, bytes, length);
}
ssize_t pread64(int fd, void *bytes, size_t length, off_t at) {
  if (tracked(fd)) { LOCK; RETURN_IF(READ); UNLOCK; }
  return real_pread(fd, bytes, length, at);
}
ssize_t pread(int fd, void *bytes, size_t length, off_t at) { return pread64(fd, bytes, length, at); }

static int do_unlink(const char *path) {
  char buffer[PATH_MAX], kept[PATH_MAX];
  const char *full = absolute(path, buffer);
  if (!counts(full)) return real_unlink(path);
  LOCK;
  RETURN_IF(NAME);
  struct stat is;
  int is_there = lstat(full, &is) == 0;
  int is_kept = is_there && keep(full, kept);
  int done = real_unlink(path), error = errno;
  if (done == 0 && is_kept) {
    changed_name(REMOVED, full, kept, NULL);
    for (struct file *file = files; file; file = file->next)
      if (file->inode == is.st_ino && file->device == is.st_dev) file->is_gone = 1;
  } else if (is_kept) real_unlink(kept);
  UNLOCK;
  errno = error;
  return done;
}
int unlink(const char *path) { return do_unlink(path); }
int unlinkat(int at, const char *path, int flags) {
  return at == AT_FDCWD && !flags ? do_unlink(path) : real_unlinkat(at, path, flags);
}
int rename(const char *from, const char *to) {
  char buffer[PATH_MAX], other[PATH_MAX], kept[PATH_MAX];
  const char *source = absolute(from, buffer), *target = absolute(to, other);
  if (!counts(source) || !counts(target)) return real_rename(from, to);
  LOCK;
  RETURN_IF(NAME);
  int is_kept = keep(target, kept);
  int done = real_rename(from, to), error = errno;
  if (done == 0) {
    changed_name(MOVED, target, source, is_kept ? kept : NULL);
    for (struct file *file = files; file; file = file->next)
      if (strcmp(file->path, source) == 0) { free(file->path); file->path = copy(target); }
  } else if (is_kept) real_unlink(kept);
  UNLOCK;
  errno = error;
  return done;
}

static int do_link(const char *from, const char *to) {
  char buffer[PATH_MAX];
  const char *full = absolute(to, buffer);
  if (!counts(full)) return real_link(from, to);
  LOCK;
  RETURN_IF(NAME);
  int done = real_link(from, to), error = errno;
  if (done == 0) changed_name(MADE, full, NULL, NULL);
  UNLOCK;
  errno = error;
  return done;
}
int link(const char *from, const char *to) { return do_link(from, to); }
int linkat(int at, const char *from, int there, const char *to, int flags) {
  return at == AT_FDCWD && there == AT_FDCWD && !flags ? do_link(from, to) : real_linkat(at, from, there, to, flags);
}

/* Copies inside the kernel would pass by: programs fall back to read and write. */
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t length, unsigned flags) {
  if (tracked(out)) { errno = ENOSYS; return -1; }
  return real_copy_file_range(in, from, out, to, length, flags);
}
ssize_t sendfile64(int out, int in, off_t *from, size_t length) {
  if (tracked(out)) { errno = EINVAL; return -1; }
  return real_sendfile(out, in, from, length);
}
ssize_t sendfile(int out, int in, off_t *from, size_t length) { return sendfile64(out, in, from, length); }
