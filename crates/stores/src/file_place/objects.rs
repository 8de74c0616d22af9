//! The objects of a directory, none of which ever makes it.
//!
//! Reading goes by paths. Writing begins at the open directory and goes down from there element by element, along no links.
//! So a directory that is taken away meanwhile is not made again under its name, empty, for everybody to take for the store:
//! what is written lands in the directory that was there, wherever it is now, or fails.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use runtime::TaskGroup;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::require_root;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct FileObjects {
    paths: Arc<LocalFileSystem>,
    root: Arc<path::Path>,
    tasks: TaskGroup,
}

impl FileObjects {
    /// The objects below `root`, an absolute path without links.
    pub(super) fn new(root: &path::Path, tasks: TaskGroup) -> Result<FileObjects> {
        let paths = LocalFileSystem::new_with_prefix(root)?;
        Ok(FileObjects { paths: Arc::new(paths), root: root.into(), tasks })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = self.tasks.spawn_blocking(name, work).await;
        outcome.map_err(|error| failed(&self.root, error))
    }

    /// What is not found in a directory that is not there may exist.
    async fn unless_root_is_missing<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(Error::NotFound { .. }) = &outcome {
            let root = Arc::clone(&self.root);
            self.blocking("look for the store's directory", move || require_root(&root)).await?;
        }
        outcome
    }

    fn not_here(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() }
    }
}

impl fmt::Display for FileObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files below {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for FileObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if opts.mode != PutMode::Overwrite {
            return Err(self.not_here("put on a condition"));
        }
        let (root, location) = (Arc::clone(&self.root), location.clone());
        let put = self.blocking("put file", move || {
            let (staged, file) = Staged::begin(&root, &location)?;
            write(&file, &payload, 0)?;
            staged.publish(file)
        });
        put.await.map(|()| done())
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (root, location) = (Arc::clone(&self.root), location.clone());
        let staged = self.blocking("stage file", move || Staged::begin(&root, &location)).await?;
        Ok(Box::new(Upload { objects: self.clone(), staged: Some(staged), at: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.unless_root_is_missing(self.paths.get_opts(location, options).await).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let check = move |deleted| {
            let this = this.clone();
            async move { this.unless_root_is_missing(deleted).await }
        };
        self.paths.delete_stream(locations).then(check).boxed()
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // `Place::list_after` lists: prefixes of keys need not be directories.
        let error = self.not_here("list");
        stream::once(async move { Err(error) }).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(self.not_here("list_with_delimiter"))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(self.not_here("copy"))
    }
}

/// Nobody asks what a file was put as.
fn done() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: http::Extensions::default() }
}

/// A file which is written part by part.
#[derive(Debug)]
struct Upload {
    objects: FileObjects,
    /// There until it is complete or given up.
    staged: Option<(Staged, Arc<File>)>,
    /// Where the next part begins.
    at: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some((_, file)) = &self.staged else { return async { Err(ended()) }.boxed() };
        let (file, at) = (Arc::clone(file), self.at);
        self.at += data.content_length() as u64;
        let objects = self.objects.clone();
        async move { objects.blocking("write part", move || write(&file, &data, at)).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (staged, file) = self.staged.take().ok_or_else(ended)?;
        self.objects.blocking("publish file", move || staged.publish(file)).await.map(|()| done())
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take().ok_or_else(ended)?;
        self.objects.tasks.spawn_blocking("give a file up", move || drop(staged)).await;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            drop(self.objects.tasks.spawn_blocking("give a file up", move || drop(staged)));
        }
    }
}

/// A file which has no name of its own yet, but one with a number. Dropping it removes it.
#[derive(Debug)]
struct Staged {
    directory: OwnedFd,
    name: String,
    staged_name: String,
    is_published: bool,
}

impl Staged {
    /// Makes the file for `location`, and the directories between `root` and it.
    fn begin(root: &path::Path, location: &Path) -> io::Result<(Staged, Arc<File>)> {
        let mut directory = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        let (directories, name) = location.as_ref().rsplit_once('/').unwrap_or(("", location.as_ref()));
        for element in directories.split('/').filter(|element| !element.is_empty()) {
            directory = enter(&directory, element)?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut number = 1_u32;
        loop {
            let staged_name = format!("{name}#{number}");
            match rustix::fs::openat(&directory, &staged_name, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => {
                    let staged =
                        Staged { directory, name: name.to_owned(), staged_name, is_published: false };
                    return Ok((staged, Arc::new(file.into())));
                }
                // Somebody else uploads the same, or was killed while he did.
                Err(Errno::EXIST) => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the file its name. It is then durable, and so is its name.
    fn publish(mut self, file: Arc<File>) -> io::Result<()> {
        file.sync_all()?;
        // Some file systems in user space write only now.
        drop(file);
        rustix::fs::renameat(&self.directory, &self.staged_name, &self.directory, &self.name)?;
        self.is_published = true;
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_published {
            // What cannot be removed now is passed over by listings, and removed by one once it is old.
            let _left_behind = rustix::fs::unlinkat(&self.directory, &self.staged_name, AtFlags::empty());
        }
    }
}

/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Opens a directory within another one, after making it if it is not there.
fn enter(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        outcome => return Ok(outcome?),
    }
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::fsync(parent)?;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn write(file: &File, payload: &PutPayload, mut at: u64) -> io::Result<()> {
    for piece in payload {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// An error of writing below `root`.
fn failed(root: &path::Path, error: io::Error) -> Error {
    let source = match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other(format!("the store's directory {} went away meanwhile", root.display()))
        }
        _ => error,
    };
    Error::Generic { store: "file", source: source.into() }
}

fn ended() -> Error {
    Error::Generic { store: "file", source: "the upload has ended".into() }
}
