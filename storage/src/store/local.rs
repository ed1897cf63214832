//! A local folder as object store whose writes are durable when they return.
//!
//! Order of a write: temporary file, sync of the file, link (create) or rename (overwrite), sync of the folder. So a
//! name never shows before its bytes are on disk, whatever instant the machine dies at.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path as FsPath, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
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
}

impl DurableLocal {
    /// Opens an existing folder.
    pub fn open(dir: &FsPath) -> Result<Self> {
        // Empty folders of deleted blocks would be listed as blocks.
        Ok(Self { inner: LocalFileSystem::new_with_prefix(dir)?.with_automatic_cleanup(true) })
    }
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
        let name = location.to_string();
        run(move || put_durably(&target, &payload, create).map_err(|e| put_error(name, e))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(LocalUpload { target, name: location.to_string(), parts: Vec::new() }))
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
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Keeps the parts (they share the caller's memory) and writes one file at the end.
#[derive(Debug)]
struct LocalUpload {
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
        let (target, name) = (self.target.clone(), self.name.clone());
        run(move || put_durably(&target, &payload, false).map_err(|e| put_error(name, e))).await?;
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

fn put_durably(target: &FsPath, payload: &PutPayload, create: bool) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let parent = target.parent().ok_or_else(|| io::Error::other("path without a folder"))?;
    // A cleaner may remove an empty folder between creation and use; the second turn creates it again.
    let (mut file, temporary) = loop {
        create_dirs_durably(parent)?;
        // "#digits" is the suffix that listings leave out.
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = target.as_os_str().to_owned();
        name.push(format!("#{}{n}", std::process::id()));
        let temporary = PathBuf::from(name);
        match File::create_new(&temporary) {
            Ok(file) => break (file, temporary),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    };
    let written = (|| {
        for chunk in payload {
            file.write_all(chunk)?;
        }
        file.sync_all()?;
        if create { std::fs::hard_link(&temporary, target) } else { std::fs::rename(&temporary, target) }
    })();
    if create || written.is_err() {
        // The link keeps the bytes; a temporary file left by a crash is invisible to listings.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    File::open(parent)?.sync_all()
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
