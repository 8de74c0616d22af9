//! Calls of SQLite on an open file.

use super::{Batch, CHARACTERISTICS, File, Handle, Opened, Region, SECTOR_BYTES, guard};
use rusqlite::ffi;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{null, null_mut};
use std::sync::atomic::{Ordering, fence};

/// The functions of files of one type.
pub(super) struct Methods<F>(PhantomData<F>);

impl<F: File> Methods<F> {
    // The second version: with what a write-ahead log needs, and without mapped files.
    pub(super) const TABLE: &'static ffi::sqlite3_io_methods = &ffi::sqlite3_io_methods {
        iVersion: 2,
        xClose: Some(close::<F>),
        xRead: Some(read::<F>),
        xWrite: Some(write::<F>),
        xTruncate: Some(truncate::<F>),
        xSync: Some(sync::<F>),
        xFileSize: Some(file_size::<F>),
        xLock: Some(lock),
        xUnlock: Some(lock),
        xCheckReservedLock: Some(check_reserved_lock),
        xFileControl: Some(file_control::<F>),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(device_characteristics),
        xShmMap: Some(shm_map::<F>),
        xShmLock: Some(shm_lock),
        xShmBarrier: Some(shm_barrier),
        xShmUnmap: Some(shm_unmap::<F>),
        xFetch: None,
        xUnfetch: None,
    };
}

/// # Safety
/// `file` was opened as an `F`, was not closed, and is used by nobody else during the call.
unsafe fn opened<'a, F>(file: *mut ffi::sqlite3_file) -> &'a mut Opened<F> {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<Handle<F>>()).opened }
}

/// # Safety
/// As SQLite calls `xClose` of a file of type `F`: it is not used any more.
unsafe extern "C" fn close<F: File>(file: *mut ffi::sqlite3_file) -> c_int {
    guard("close", ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: the caller's promise; the handle was made by `open`, and loses what it has here.
        let opened = unsafe {
            let handle = file.cast::<Handle<F>>();
            (*handle).base.pMethods = null();
            Box::from_raw(std::mem::replace(&mut (*handle).opened, null_mut()))
        };
        opened.file.close().map(|()| ffi::SQLITE_OK)
    })
}

/// # Safety
/// As SQLite calls `xRead` of a file of type `F`.
unsafe extern "C" fn read<F: File>(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    guard("read", ffi::SQLITE_IOERR_READ, || {
        let (length, offset) = (usize::try_from(bytes)?, u64::try_from(offset)?);
        // SAFETY: the caller's promise. Bytes which were never set are, before there is a slice of them.
        let (opened, buffer) = unsafe {
            std::ptr::write_bytes(buffer.cast::<u8>(), 0, length);
            (opened::<F>(file), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length))
        };
        let read = opened.file.read(offset, buffer)?;
        Ok(if read < length { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK })
    })
}

/// # Safety
/// As SQLite calls `xWrite` of a file of type `F`.
unsafe extern "C" fn write<F: File>(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    guard("write", ffi::SQLITE_IOERR_WRITE, || {
        let (length, offset) = (usize::try_from(bytes)?, u64::try_from(offset)?);
        // SAFETY: the caller's promise.
        let (opened, data) =
            unsafe { (opened::<F>(file), std::slice::from_raw_parts(data.cast::<u8>(), length)) };
        opened.file.write(offset, data).map(|()| ffi::SQLITE_OK)
    })
}

/// # Safety
/// As SQLite calls `xTruncate` of a file of type `F`.
unsafe extern "C" fn truncate<F: File>(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    guard("truncate", ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: the caller's promise.
        let opened = unsafe { opened::<F>(file) };
        opened.file.truncate(u64::try_from(size)?).map(|()| ffi::SQLITE_OK)
    })
}

/// # Safety
/// As SQLite calls `xSync` of a file of type `F`.
unsafe extern "C" fn sync<F: File>(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guard("sync", ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: the caller's promise.
        unsafe { opened::<F>(file) }.file.sync().map(|()| ffi::SQLITE_OK)
    })
}

/// # Safety
/// As SQLite calls `xFileSize` of a file of type `F`.
unsafe extern "C" fn file_size<F: File>(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    guard("file size", ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: the caller's promise.
        let size = unsafe { opened::<F>(file) }.file.size()?;
        let size = ffi::sqlite3_int64::try_from(size)?;
        // SAFETY: the caller's promise.
        unsafe { *out = size };
        Ok(ffi::SQLITE_OK)
    })
}

/// There is one connection, which has every lock that it wants.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// `out` points to a number.
unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// # Safety
/// As SQLite calls `xFileControl` of a file of type `F`.
unsafe extern "C" fn file_control<F: File>(
    file: *mut ffi::sqlite3_file,
    control: c_int,
    _argument: *mut c_void,
) -> c_int {
    let (step, failure) = match control {
        ffi::SQLITE_FCNTL_BEGIN_ATOMIC_WRITE => (Batch::Begin, ffi::SQLITE_IOERR_BEGIN_ATOMIC),
        ffi::SQLITE_FCNTL_COMMIT_ATOMIC_WRITE => (Batch::Commit, ffi::SQLITE_IOERR_COMMIT_ATOMIC),
        ffi::SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE => (Batch::RollBack, ffi::SQLITE_IOERR_ROLLBACK_ATOMIC),
        _ => return ffi::SQLITE_NOTFOUND,
    };
    guard("atomic batch", failure, || {
        // SAFETY: the caller's promise.
        let known = unsafe { opened::<F>(file) }.file.batch(step)?;
        Ok(if known { ffi::SQLITE_OK } else { ffi::SQLITE_NOTFOUND })
    })
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    CHARACTERISTICS
}

/// # Safety
/// As SQLite calls `xShmMap` of a file of type `F`.
unsafe extern "C" fn shm_map<F: File>(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    guard("map", ffi::SQLITE_IOERR_SHMMAP, || {
        let (number, words) = (usize::try_from(number)?, usize::try_from(bytes)?.div_ceil(size_of::<u64>()));
        // SAFETY: the caller's promise.
        let regions = unsafe { &mut opened::<F>(file).shared };
        while extend != 0 && regions.len() <= number {
            regions.push(Region(Box::into_raw(vec![0; words].into_boxed_slice())));
        }
        let region = regions.get(number).map_or(null_mut(), |region| region.0.cast());
        // SAFETY: the caller's promise.
        unsafe { *out = region };
        Ok(ffi::SQLITE_OK)
    })
}

/// As for files: there is one connection.
unsafe extern "C" fn shm_lock(_file: *mut ffi::sqlite3_file, _at: c_int, _n: c_int, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

/// # Safety
/// As SQLite calls `xShmUnmap` of a file of type `F`: it has no pointers into the memory any more.
unsafe extern "C" fn shm_unmap<F: File>(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    guard("unmap", ffi::SQLITE_IOERR_SHMMAP, || {
        // SAFETY: the caller's promise.
        unsafe { opened::<F>(file) }.shared.clear();
        Ok(ffi::SQLITE_OK)
    })
}
