//! A local folder as object store whose writes are durable when they return.
//!
//! Order of a write: file in the staging folder, sync of the file, link (create) or rename (overwrite) to its place,
//! sync of the folder. So a name never shows before its bytes are on disk, whatever instant the machine dies at, and
//! what a death leaves behind is in the staging folder, where no listing sees it and the next start removes it.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path as FsPath, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, local::LocalFileSystem,
    path::Path,
};

/// See the module's documentation.
#[derive(Debug)]
pub struct DurableLocal {
    inner: LocalFileSystem,
    staging: PathBuf,
}

/// The folder, beside `tenants`, of files that are being written.
const STAGING: &str = "staging";
/// A staged file older than this belongs to nobody: no write takes so long.
const STAGED_MAX: Duration = Duration::from_secs(3600);

impl DurableLocal {
    /// Opens an existing folder.
    pub fn open(dir: &FsPath) -> Result<Self> {
        let staging = dir.join(STAGING);
        let prepared = std::fs::create_dir_all(&staging).and_then(|()| remove_old_files(&staging));
        prepared.map_err(|e| put_error(staging.display().to_string(), e))?;
        // Empty folders of deleted blocks would be listed as blocks.
        Ok(Self { inner: LocalFileSystem::new_with_prefix(dir)?.with_automatic_cleanup(true), staging })
    }
}

fn remove_old_files(dir: &FsPath) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|a| a > STAGED_MAX) {
            // Another process may be doing the same.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put with PutMode::Update".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        let (staging, name) = (self.staging.clone(), location.to_string());
        run(move || put_durably(&staging, &target, &payload, create).map_err(|e| put_error(name, e))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let staging = self.staging.clone();
        Ok(Box::new(LocalUpload { staging, target, name: location.to_string(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        // A death between making a folder and linking the first file into it leaves an empty one; an object store
        // has no such thing.
        listed.common_prefixes.retain(|p| {
            let dir = self.inner.path_to_filesystem(p).and_then(|d| {
                let first = std::fs::read_dir(&d).map(|mut entries| entries.next().is_some());
                first.map_err(|e| put_error(p.to_string(), e))
            });
            dir.unwrap_or(true)
        });
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Keeps the parts (they share the caller's memory) and writes one file at the end.
#[derive(Debug)]
struct LocalUpload {
    staging: PathBuf,
    target: PathBuf,
    name: String,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(futures::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload: PutPayload = std::mem::take(&mut self.parts).into_iter().flatten().collect();
        let (staging, target, name) = (self.staging.clone(), self.target.clone(), self.name.clone());
        run(move || put_durably(&staging, &target, &payload, false).map_err(|e| put_error(name, e))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

async fn run<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(r) => r,
        Err(source) => Err(Error::JoinError { source }),
    }
}

fn put_error(path: String, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: Box::new(e) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: Box::new(e) },
        _ => Error::Generic { store: "local", source: Box::new(e) },
    }
}

fn put_durably(staging: &FsPath, target: &FsPath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let parent = target.parent().ok_or_else(|| io::Error::other("path without a folder"))?;
    let (mut file, staged) = stage(staging)?;
    let written = (|| {
        for chunk in payload {
            file.write_all(chunk)?;
        }
        file.sync_all()?;
        loop {
            create_dirs_durably(parent)?;
            let placed =
                if create { std::fs::hard_link(&staged, target) } else { std::fs::rename(&staged, target) };
            match placed {
                // A cleaner removed the folder, empty yet, between the two steps.
                Err(e) if e.kind() == io::ErrorKind::NotFound && staged.exists() => {}
                other => break other,
            }
        }
    })();
    if create || written.is_err() {
        // The link keeps the bytes.
        let _ = std::fs::remove_file(&staged);
    }
    written?;
    File::open(parent)?.sync_all()
}

/// A new file in the staging folder.
fn stage(staging: &FsPath) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = staging.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            // Left by a process of the same number that died.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // Removed together with the last object.
            Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(staging)?,
            Err(e) => return Err(e),
        }
    }
}

fn create_dirs_durably(dir: &FsPath) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs_durably(parent)?;
        match std::fs::create_dir(dir) {
            Ok(()) => File::open(parent)?.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
