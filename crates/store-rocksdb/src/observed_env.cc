// A RocksDB file system which tells an observer of every change that it made to files.
//
// It wraps the default file system. An operation is done locally first; once it succeeded the observer is told, and may
// fail it. What cannot be told to an observer which knows whole files and appends alone (files which are reopened,
// reused, truncated, mapped, or written at random) is not supported, and RocksDB is configured not to need it.
#include "observed_env.h"

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace {

using rocksdb::DataVerificationInfo;
using rocksdb::Env;
using rocksdb::FileOptions;
using rocksdb::FileSystem;
using rocksdb::FSRandomRWFile;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::MemoryMappedFileBuffer;
using rocksdb::Slice;

IOStatus Refused(const char* operation) {
  return IOStatus::IOError(operation, "refused by the recorder");
}

IOStatus Unsupported(const char* operation) {
  return IOStatus::NotSupported(operation, "not supported by an observed file system");
}

// Owns the observer's context. Held by the file system and by each of its files, whichever goes last.
class Observer {
 public:
  explicit Observer(const courant_observer& callbacks) : callbacks_(callbacks) {}
  ~Observer() { callbacks_.drop(callbacks_.context); }
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  const courant_observer* operator->() const { return &callbacks_; }
  void* context() const { return callbacks_.context; }

 private:
  const courant_observer callbacks_;
};

// A file which is written from its begin to its end. RocksDB appends and closes on one thread at a time; it may sync
// while it appends.
class ObservedFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  ObservedFile(std::unique_ptr<FSWritableFile>&& target, std::shared_ptr<Observer> observer, void* file)
      : FSWritableFileOwnerWrapper(std::move(target)), observer_(std::move(observer)), file_(file) {}
  ~ObservedFile() override { (*observer_)->file_drop(file_); }

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    return Appended(data, target()->Append(data, options, debug));
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    return Appended(data, target()->Append(data, options, verification, debug));
  }
  // Of direct I/O, which rewrites the last sector.
  IOStatus PositionedAppend(const Slice&, uint64_t, const IOOptions&, IODebugContext*) override {
    return Unsupported("PositionedAppend");
  }
  IOStatus PositionedAppend(const Slice&, uint64_t, const IOOptions&, const DataVerificationInfo&,
                            IODebugContext*) override {
    return Unsupported("PositionedAppend");
  }
  // To the size it has, a file may be truncated.
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    return size == size_ ? target()->Truncate(size, options, debug) : Unsupported("Truncate");
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(target()->Sync(options, debug));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(target()->Fsync(options, debug));
  }
  // The wrapper does not forward these two.
  void SetIOPriority(Env::IOPriority priority) override { target()->SetIOPriority(priority); }
  Env::IOPriority GetIOPriority() override { return target()->GetIOPriority(); }

 private:
  IOStatus Appended(const Slice& data, IOStatus status) {
    if (!status.ok()) return status;
    const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
    if ((*observer_)->file_append(file_, size_, bytes, data.size()) != 0) return Refused("Append");
    size_ += data.size();
    return status;
  }
  IOStatus Synced(IOStatus status) {
    if (status.ok() && (*observer_)->file_sync(file_) != 0) return Refused("Sync");
    return status;
  }

  const std::shared_ptr<Observer> observer_;
  void* const file_;
  uint64_t size_ = 0;
};

class ObservedFileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit ObservedFileSystem(std::shared_ptr<Observer> observer)
      : FileSystemWrapper(FileSystem::Default()), observer_(std::move(observer)) {}

  static const char* kClassName() { return "CourantObservedFileSystem"; }
  const char* Name() const override { return kClassName(); }

  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* result, IODebugContext* debug) override {
    std::unique_ptr<FSWritableFile> target;
    IOStatus status = FileSystemWrapper::NewWritableFile(path, options, &target, debug);
    if (!status.ok()) return status;
    void* file = nullptr;
    if ((*observer_)->create(observer_->context(), path.data(), path.size(), &file) != 0) {
      return Refused("NewWritableFile");
    }
    result->reset(new ObservedFile(std::move(target), observer_, file));
    return status;
  }
  IOStatus ReopenWritableFile(const std::string&, const FileOptions&, std::unique_ptr<FSWritableFile>*,
                              IODebugContext*) override {
    return Unsupported("ReopenWritableFile");
  }
  IOStatus ReuseWritableFile(const std::string&, const std::string&, const FileOptions&,
                             std::unique_ptr<FSWritableFile>*, IODebugContext*) override {
    return Unsupported("ReuseWritableFile");
  }
  IOStatus NewRandomRWFile(const std::string&, const FileOptions&, std::unique_ptr<FSRandomRWFile>*,
                           IODebugContext*) override {
    return Unsupported("NewRandomRWFile");
  }
  IOStatus NewMemoryMappedFileBuffer(const std::string&, std::unique_ptr<MemoryMappedFileBuffer>*) override {
    return Unsupported("NewMemoryMappedFileBuffer");
  }
  IOStatus Truncate(const std::string&, size_t, const IOOptions&, IODebugContext*) override {
    return Unsupported("Truncate");
  }
  IOStatus DeleteDir(const std::string&, const IOOptions&, IODebugContext*) override {
    return Unsupported("DeleteDir");
  }
  IOStatus DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::DeleteFile(path, options, debug);
    if (!status.ok()) return status;
    const int refused = (*observer_)->remove(observer_->context(), path.data(), path.size());
    return refused == 0 ? status : Refused("DeleteFile");
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::RenameFile(from, to, options, debug);
    if (!status.ok()) return status;
    const int refused =
        (*observer_)->rename(observer_->context(), from.data(), from.size(), to.data(), to.size());
    return refused == 0 ? status : Refused("RenameFile");
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                    IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::LinkFile(from, to, options, debug);
    if (!status.ok()) return status;
    const int refused =
        (*observer_)->link(observer_->context(), from.data(), from.size(), to.data(), to.size());
    return refused == 0 ? status : Refused("LinkFile");
  }
  // Makes a closed file durable.
  IOStatus SyncFile(const std::string& path, const FileOptions& file_options, const IOOptions& options,
                    bool use_fsync, IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::SyncFile(path, file_options, options, use_fsync, debug);
    if (!status.ok()) return status;
    return (*observer_)->sync(observer_->context()) == 0 ? status : Refused("SyncFile");
  }

 private:
  const std::shared_ptr<Observer> observer_;
};

}  // namespace

extern "C" {

// As RocksDB's C API defines it (db/c.cc of 11.8), which keeps it to itself: rocksdb_env_destroy frees this.
struct rocksdb_env_t {
  rocksdb::Env* rep;
  bool is_default;
};

rocksdb_env_t* courant_observed_env(const courant_observer* callbacks) {
  try {
    auto observer = std::make_shared<Observer>(*callbacks);
    auto file_system = std::make_shared<ObservedFileSystem>(std::move(observer));
    auto env = std::make_unique<rocksdb_env_t>();
    env->rep = rocksdb::NewCompositeEnv(file_system).release();
    env->is_default = false;
    return env.release();
  } catch (const std::exception&) {
    return nullptr;  // Out of memory: the observer, if it was made, has dropped its context.
  }
}

}  // extern "C"
