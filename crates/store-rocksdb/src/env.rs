//! The foreign half of the observer: RocksDB's callbacks, as calls of a trait.
//!
//! This is the only module with `unsafe` code, and the only one besides `observed_env.cc` which knows how the two sides
//! meet. RocksDB is given a table of functions and a context; the context is the observer, shared by reference count. A
//! panic must not cross C++ frames, so each callback catches it and refuses the operation.

use rocksdb::Env;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Fails RocksDB's operation with an I/O error. On writes, flushes and changes of the manifest the database is read-only
/// from then on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Told of each operation right after it succeeded locally, by whichever thread of RocksDB did it. Never told of reads.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A file which is written to.
    type File: ObservedFile;

    /// A new, empty file; one which was there before is gone.
    fn create(&self, path: &Path) -> Result<Self::File, Refused>;
    /// A file was removed.
    fn remove(&self, path: &Path) -> Result<(), Refused>;
    /// A file was renamed; one which was at `to` is gone.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Refused>;
    /// A file has another path.
    fn link(&self, from: &Path, to: &Path) -> Result<(), Refused>;
    /// All operations so far must be durable when this returns.
    fn sync(&self) -> Result<(), Refused>;
}

/// A file which is written from its begin to its end. RocksDB syncs it while it appends to it, so it is shared.
pub(crate) trait ObservedFile: Send + Sync + 'static {
    /// Bytes were appended; the file had `offset` bytes before.
    fn append(&self, offset: u64, data: &[u8]) -> Result<(), Refused>;
    /// All operations so far must be durable when this returns.
    fn sync(&self) -> Result<(), Refused>;
}

/// As `courant_observer` of `observed_env.h`.
#[repr(C)]
struct Callbacks {
    context: *mut c_void,
    drop: unsafe extern "C" fn(*mut c_void),
    create: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut *mut c_void) -> c_int,
    remove: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> c_int,
    rename: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize) -> c_int,
    link: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize) -> c_int,
    sync: unsafe extern "C" fn(*mut c_void) -> c_int,
    file_append: unsafe extern "C" fn(*mut c_void, u64, *const u8, usize) -> c_int,
    file_sync: unsafe extern "C" fn(*mut c_void) -> c_int,
    file_drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn courant_observed_env(callbacks: *const Callbacks) -> *mut librocksdb_sys::rocksdb_env_t;
}

/// An environment for [`rocksdb::Options::set_env`], which keeps it alive for as long as the database is. None if there
/// is no memory for it.
pub(crate) fn observed_env<O: Observer>(observer: O) -> Option<Env> {
    let callbacks = Callbacks {
        context: Arc::into_raw(Arc::new(observer)).cast_mut().cast(),
        drop: drop_observer::<O>,
        create: create::<O>,
        remove: remove::<O>,
        rename: rename::<O>,
        link: link::<O>,
        sync: sync::<O>,
        file_append: file_append::<O::File>,
        file_sync: file_sync::<O::File>,
        file_drop: file_drop::<O::File>,
    };
    // SAFETY: the table is valid during the call, which copies it. Its functions have the signatures of the header, and
    // each expects the context that is beside it, or a file that `create` made. The context is handed over: C++ calls
    // `drop` once, after all other calls.
    let env = unsafe { courant_observed_env(&raw const callbacks) };
    if env.is_null() {
        return None;
    }
    // SAFETY: `env` is what RocksDB's C API calls a `rocksdb_env_t`, made by `new`, and nobody else has it.
    Some(unsafe { Env::from_raw(env) })
}

/// Runs a callback. Nothing may unwind out of it: the caller is C++.
fn guard(callback: impl FnOnce() -> Result<(), Refused>) -> c_int {
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(Ok(())) => 0,
        Ok(Err(Refused)) => 1,
        Err(_) => {
            tracing::error!("the observer of a RocksDB panicked; the operation is refused");
            2
        }
    }
}

/// # Safety
/// `text` points to `len` bytes which stay as they are for `'a`.
unsafe fn path<'a>(text: *const c_char, len: usize) -> &'a Path {
    // SAFETY: the caller's promise; a byte is aligned anywhere.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    Path::new(OsStr::from_bytes(bytes))
}

/// # Safety
/// `context` is of an `Observer` of type `O`, was made by `Arc::into_raw`, and is not used any more.
unsafe extern "C" fn drop_observer<O: Observer>(context: *mut c_void) {
    guard(|| {
        // SAFETY: the caller's promise.
        drop(unsafe { Arc::from_raw(context.cast_const().cast::<O>()) });
        Ok(())
    });
}

/// # Safety
/// `context` is of a live `Observer` of type `O`, `text` points to `len` bytes, and `file` to a place for a pointer.
unsafe extern "C" fn create<O: Observer>(
    context: *mut c_void,
    text: *const c_char,
    len: usize,
    file: *mut *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise; the observer is shared, and is `Sync`.
        let (observer, path) = unsafe { (&*context.cast::<O>(), path(text, len)) };
        let created = Box::into_raw(Box::new(observer.create(path)?));
        // SAFETY: the caller's promise.
        unsafe { *file = created.cast() };
        Ok(())
    })
}

/// # Safety
/// `context` is of a live `Observer` of type `O`, and `text` points to `len` bytes.
unsafe extern "C" fn remove<O: Observer>(context: *mut c_void, text: *const c_char, len: usize) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise; the observer is shared, and is `Sync`.
        let (observer, path) = unsafe { (&*context.cast::<O>(), path(text, len)) };
        observer.remove(path)
    })
}

/// # Safety
/// `context` is of a live `Observer` of type `O`, and both texts point to as many bytes as they are said to have.
unsafe extern "C" fn rename<O: Observer>(
    context: *mut c_void,
    from: *const c_char,
    from_len: usize,
    to: *const c_char,
    to_len: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise; the observer is shared, and is `Sync`.
        let (observer, from, to) = unsafe { (&*context.cast::<O>(), path(from, from_len), path(to, to_len)) };
        observer.rename(from, to)
    })
}

/// # Safety
/// `context` is of a live `Observer` of type `O`, and both texts point to as many bytes as they are said to have.
unsafe extern "C" fn link<O: Observer>(
    context: *mut c_void,
    from: *const c_char,
    from_len: usize,
    to: *const c_char,
    to_len: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise; the observer is shared, and is `Sync`.
        let (observer, from, to) = unsafe { (&*context.cast::<O>(), path(from, from_len), path(to, to_len)) };
        observer.link(from, to)
    })
}

/// # Safety
/// `context` is of a live `Observer` of type `O`.
unsafe extern "C" fn sync<O: Observer>(context: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; the observer is shared, and is `Sync`.
    guard(|| unsafe { &*context.cast::<O>() }.sync())
}

/// # Safety
/// `file` is of type `F`, was made by `create`, and was not dropped; `data` points to `len` bytes.
unsafe extern "C" fn file_append<F: ObservedFile>(
    file: *mut c_void,
    offset: u64,
    data: *const u8,
    len: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise; the file is shared, and is `Sync`. The data of no bytes may point nowhere.
        let (file, data) = unsafe {
            let data = if len == 0 { &[] } else { std::slice::from_raw_parts(data, len) };
            (&*file.cast::<F>(), data)
        };
        file.append(offset, data)
    })
}

/// # Safety
/// `file` is of type `F`, was made by `create`, and was not dropped.
unsafe extern "C" fn file_sync<F: ObservedFile>(file: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; the file is shared, and is `Sync`.
    guard(|| unsafe { &*file.cast::<F>() }.sync())
}

/// # Safety
/// `file` is of type `F`, was made by `create`, and is not used any more.
unsafe extern "C" fn file_drop<F: ObservedFile>(file: *mut c_void) {
    guard(|| {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(file.cast::<F>()) });
        Ok(())
    });
}
