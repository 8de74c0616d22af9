//! The foreign half of the file system: SQLite's calls, as calls of traits.
//!
//! This is the only module with `unsafe` code. SQLite is given a table of functions and a context for a file system, and
//! one for each file that it opens. A panic must not cross C frames, so each function catches it and fails the call. A
//! file system here is for one connection: nothing is locked, and the memory which connections would share by a
//! write-ahead log is that of the one. Files without a name are temporary; SQLite's own file system has them.

mod methods;

use methods::Methods;
use runtime::BoxError;
use rusqlite::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all files promise: appended bytes are there before the file is larger; what a write does not cover stays as it
/// is; and a batch of writes may be atomic. Nothing is promised of the order of writes, so SQLite syncs.
const CHARACTERISTICS: c_int =
    ffi::SQLITE_IOCAP_SAFE_APPEND | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_BATCH_ATOMIC;

const SECTOR_BYTES: c_int = 4096;

/// Longest name of a file, in bytes, its terminator included.
const NAME_BYTES_MAX: c_int = 1024;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pages of a database.
    Database,
    /// A journal, or a write-ahead log.
    Log,
    /// Of no use to anyone else.
    Temporary,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) kind: Kind,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) read_only: bool,
    pub(crate) delete_on_close: bool,
}

/// A step of an atomic batch of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    Begin,
    Commit,
    RollBack,
}

/// A file system, as SQLite uses it. Names are relative to it.
pub(crate) trait FileSystem: Send + Sync + 'static {
    type File: File;

    /// The one name of a file.
    fn full_path(&self, name: &str) -> Result<String, BoxError>;
    fn open(this: &Arc<Self>, name: &str, open: Open) -> Result<Self::File, BoxError>;
    /// Whether there was such a file, which is gone now.
    fn delete(&self, name: &str) -> Result<bool, BoxError>;
    /// Whether there is such a file which is not empty.
    fn exists(&self, name: &str) -> Result<bool, BoxError>;
}

/// An open file.
pub(crate) trait File: 'static {
    /// Reads into a buffer of zeros, and says how many bytes there are for it.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, BoxError>;
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BoxError>;
    fn truncate(&mut self, size: u64) -> Result<(), BoxError>;
    fn sync(&mut self) -> Result<(), BoxError>;
    fn size(&mut self) -> Result<u64, BoxError>;
    /// False of files which know no batches.
    fn batch(&mut self, step: Batch) -> Result<bool, BoxError>;
    fn close(self) -> Result<(), BoxError>;
}

/// A file system which SQLite knows by a name. It must live longer than the connections that use it, so the name is told
/// to nobody else.
pub(crate) struct Registered<S: FileSystem> {
    vfs: *mut ffi::sqlite3_vfs,
    name: CString,
    files: PhantomData<Arc<S>>,
}

// SAFETY: SQLite guards its list of file systems, the context is `Sync`, and the table is not changed.
unsafe impl<S: FileSystem> Send for Registered<S> {}

struct Context<S> {
    files: Arc<S>,
    /// SQLite's own file system.
    parent: *mut ffi::sqlite3_vfs,
}

/// What SQLite reserves room for: its own part, and what is open.
#[repr(C)]
struct Handle<F> {
    base: ffi::sqlite3_file,
    opened: *mut Opened<F>,
}

struct Opened<F> {
    file: F,
    shared: Vec<Region>,
}

/// Memory of a write-ahead log's index, which SQLite has pointers into.
struct Region(*mut [u64]);

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`, and SQLite unmapped it or closed the file.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Whether SQLite was built to commit by atomic batches, where the file system has them.
pub(crate) fn has_batch_atomic_writes() -> bool {
    // SAFETY: the text is terminated.
    unsafe { ffi::sqlite3_compileoption_used(c"ENABLE_BATCH_ATOMIC_WRITE".as_ptr()) == 1 }
}

impl<S: FileSystem> Registered<S> {
    /// Makes a file system known to SQLite. None if SQLite has no memory for it, or no file system of its own.
    pub(crate) fn new(files: Arc<S>) -> Option<Registered<S>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("courant-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).expect("digits and letters");
        // SAFETY: no name is the default one; SQLite initialises itself.
        let parent = unsafe { ffi::sqlite3_vfs_find(null()) };
        // SAFETY: SQLite's own file system stays for as long as the process.
        let parent_bytes = unsafe { parent.as_ref() }?.szOsFile;
        let context = Box::into_raw(Box::new(Context { files, parent }));
        let handle_bytes = c_int::try_from(size_of::<Handle<S::File>>()).expect("two pointers");
        let vfs = Box::into_raw(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: handle_bytes.max(parent_bytes),
            mxPathname: NAME_BYTES_MAX,
            pNext: null_mut(),
            zName: name.as_ptr(),
            pAppData: context.cast(),
            xOpen: Some(open::<S>),
            xDelete: Some(delete::<S>),
            xAccess: Some(access::<S>),
            xFullPathname: Some(full_pathname::<S>),
            xDlOpen: Some(dl_open),
            xDlError: Some(dl_error),
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness::<S>),
            xSleep: Some(sleep::<S>),
            xCurrentTime: Some(current_time::<S>),
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time_int64::<S>),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        let registered = Registered { vfs, name, files: PhantomData };
        // SAFETY: the table is complete, and stays until it is unregistered, as its name and context do.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        (code == ffi::SQLITE_OK).then_some(registered)
    }

    /// By which a connection is opened.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }
}

impl<S: FileSystem> Drop for Registered<S> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used by nobody any more: connections are closed before. Unregistering what was not
        // registered does nothing.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            let vfs = Box::from_raw(self.vfs);
            drop(Box::from_raw(vfs.pAppData.cast::<Context<S>>()));
        }
    }
}

/// Runs a call. Nothing may unwind out of it: the caller is C. SQLite gets a code; the cause goes to the log.
fn guard(operation: &'static str, failure: c_int, call: impl FnOnce() -> Result<c_int, BoxError>) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            tracing::warn!(operation, %error, "a file operation of SQLite failed");
            failure
        }
        Err(_) => {
            tracing::error!(operation, "a file operation of SQLite panicked; it fails");
            failure
        }
    }
}

/// # Safety
/// `vfs` is of a live `Registered<S>`.
unsafe fn context<'a, S: FileSystem>(vfs: *mut ffi::sqlite3_vfs) -> &'a Context<S> {
    // SAFETY: the caller's promise; the context is made once, and is not changed.
    unsafe { &*(*vfs).pAppData.cast::<Context<S>>() }
}

/// # Safety
/// `text` is terminated, and stays as it is for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, BoxError> {
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_str()?)
}

/// # Safety
/// As SQLite calls `xOpen` of a registered file system of type `S`.
unsafe extern "C" fn open<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    guard("open", ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the caller's promise. The room at `file` is large enough for either handle, and aligned for pointers.
        unsafe {
            let context = context::<S>(vfs);
            (*file).pMethods = null();
            if name.is_null() {
                let open = (*context.parent).xOpen.expect("a file system opens files");
                return Ok(open(context.parent, name, file, flags, out_flags));
            }
            let opened = S::open(&context.files, text(name)?, how(flags))?;
            let opened = Box::into_raw(Box::new(Opened { file: opened, shared: Vec::new() }));
            let base = ffi::sqlite3_file { pMethods: Methods::<S::File>::TABLE };
            file.cast::<Handle<S::File>>().write(Handle { base, opened });
            if !out_flags.is_null() {
                *out_flags = flags;
            }
            Ok(ffi::SQLITE_OK)
        }
    })
}

fn how(flags: c_int) -> Open {
    const LOGS: c_int = ffi::SQLITE_OPEN_MAIN_JOURNAL
        | ffi::SQLITE_OPEN_SUPER_JOURNAL
        | ffi::SQLITE_OPEN_SUBJOURNAL
        | ffi::SQLITE_OPEN_WAL;
    let has = |flag: c_int| flags & flag != 0;
    let kind = if has(ffi::SQLITE_OPEN_MAIN_DB) {
        Kind::Database
    } else if has(LOGS) {
        Kind::Log
    } else {
        Kind::Temporary
    };
    Open {
        kind,
        create: has(ffi::SQLITE_OPEN_CREATE),
        exclusive: has(ffi::SQLITE_OPEN_EXCLUSIVE),
        read_only: has(ffi::SQLITE_OPEN_READONLY),
        delete_on_close: has(ffi::SQLITE_OPEN_DELETEONCLOSE),
    }
}

/// # Safety
/// As SQLite calls `xDelete` of a registered file system of type `S`.
unsafe extern "C" fn delete<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _sync_dir: c_int,
) -> c_int {
    guard("delete", ffi::SQLITE_IOERR_DELETE, || {
        // SAFETY: the caller's promise.
        let (context, name) = unsafe { (context::<S>(vfs), text(name)?) };
        let was_there = context.files.delete(name)?;
        Ok(if was_there { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_DELETE_NOENT })
    })
}

/// # Safety
/// As SQLite calls `xAccess` of a registered file system of type `S`.
unsafe extern "C" fn access<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    guard("access", ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: the caller's promise.
        let (context, name) = unsafe { (context::<S>(vfs), text(name)?) };
        let exists = context.files.exists(name)?;
        // SAFETY: the caller's promise.
        unsafe { *out = exists.into() };
        Ok(ffi::SQLITE_OK)
    })
}

/// # Safety
/// As SQLite calls `xFullPathname` of a registered file system of type `S`.
unsafe extern "C" fn full_pathname<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out_bytes: c_int,
    out: *mut c_char,
) -> c_int {
    guard("full pathname", ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the caller's promise.
        let (context, name) = unsafe { (context::<S>(vfs), text(name)?) };
        let path = CString::new(context.files.full_path(name)?)?;
        let bytes = path.as_bytes_with_nul();
        if bytes.len() > usize::try_from(out_bytes)? {
            return Err(format!("{path:?} has more than {out_bytes} bytes").into());
        }
        // SAFETY: the caller's promise; there is room.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
        Ok(ffi::SQLITE_OK)
    })
}

/// Extensions are not loaded through a recorded file system.
unsafe extern "C" fn dl_open(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char) -> *mut c_void {
    null_mut()
}

/// # Safety
/// `out` has room for `bytes`.
unsafe extern "C" fn dl_error(_vfs: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) {
    if bytes > 0 {
        // SAFETY: the caller's promise.
        unsafe { *out = 0 };
    }
}

/// # Safety
/// As SQLite calls `xRandomness` of a registered file system of type `S`.
unsafe extern "C" fn randomness<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise, handed on to SQLite's own file system, which lives as long as the process.
    unsafe {
        let parent = context::<S>(vfs).parent;
        (*parent).xRandomness.map_or(0, |call| call(parent, bytes, out))
    }
}

/// # Safety
/// As SQLite calls `xSleep` of a registered file system of type `S`.
unsafe extern "C" fn sleep<S: FileSystem>(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: as for `randomness`.
    unsafe {
        let parent = context::<S>(vfs).parent;
        (*parent).xSleep.map_or(0, |call| call(parent, microseconds))
    }
}

/// # Safety
/// As SQLite calls `xCurrentTime` of a registered file system of type `S`.
unsafe extern "C" fn current_time<S: FileSystem>(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: as for `randomness`.
    unsafe {
        let parent = context::<S>(vfs).parent;
        (*parent).xCurrentTime.map_or(ffi::SQLITE_ERROR, |call| call(parent, out))
    }
}

/// # Safety
/// As SQLite calls `xCurrentTimeInt64` of a registered file system of type `S`.
unsafe extern "C" fn current_time_int64<S: FileSystem>(
    vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as for `randomness`.
    unsafe {
        let parent = context::<S>(vfs).parent;
        (*parent).xCurrentTimeInt64.map_or(ffi::SQLITE_ERROR, |call| call(parent, out))
    }
}
