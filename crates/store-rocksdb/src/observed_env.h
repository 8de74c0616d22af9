// The boundary between RocksDB's file system and the observer, which is written in Rust (env.rs).
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {

// Called right after an operation succeeded locally, by whichever thread did it. Zero lets RocksDB go on; anything else
// fails its operation with an I/O error. Text has a length and no terminator. No callback may unwind.
struct courant_observer {
  void* context;
  void (*drop)(void* context);
  int (*create)(void* context, const char* path, size_t path_len, void** file);
  int (*remove)(void* context, const char* path, size_t path_len);
  int (*rename)(void* context, const char* from, size_t from_len, const char* to, size_t to_len);
  int (*link)(void* context, const char* from, size_t from_len, const char* to, size_t to_len);
  int (*sync)(void* context);

  // Of the files which `create` made.
  int (*file_append)(void* file, uint64_t offset, const uint8_t* data, size_t len);
  int (*file_sync)(void* file);
  void (*file_drop)(void* file);
};

struct rocksdb_env_t;

// An environment whose file system is the default one, observed. Takes the observer's context over, also on failure,
// which is a null pointer. To be freed by rocksdb_env_destroy.
rocksdb_env_t* courant_observed_env(const courant_observer* observer);
}
