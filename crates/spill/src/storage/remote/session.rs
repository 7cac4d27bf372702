//! The marker that shows that a session lives, and the sweep of sessions that don't.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt as _, PutPayload};

use super::upload::UPLOAD;
use super::{Failure, Ordering, Remote};
use crate::storage::marker::{self, Owner};
use crate::storage::{StorageError, Swept};
use crate::{SESSION_PREFIX, Session};

/// Says who owns the session. Written before anything else, again at each heartbeat, removed last.
const MARKER: &str = "session";

impl Remote {
    pub(super) async fn mark(&self) -> Result<(), StorageError> {
        let path = self.folder().join(MARKER);
        let text = Owner::this_process().to_text();
        match self.attempt(0, || self.client.objects.put(&path, PutPayload::from(text.clone()))).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.explain("write the session's marker", &failure)),
        }
    }

    /// Ages count from the server's own clock, which our fresh marker tells.
    pub(super) async fn sweep_prefix(&self) -> Result<Swept, StorageError> {
        self.mark().await?;
        let result = self.sweep_sessions().await;
        if !self.marked.load(Ordering::Relaxed) {
            self.delete(&self.folder().join(MARKER)).await?;
        }
        result
    }

    async fn sweep_sessions(&self) -> Result<Swept, StorageError> {
        let explain = |failure| self.explain("look for dead sessions", &failure);
        let marker = self.folder().join(MARKER);
        let now = self.attempt(0, || self.client.objects.head(&marker)).await.map_err(explain)?.last_modified;
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let list = self.attempt(0, || self.client.objects.list_with_delimiter(prefix)).await.map_err(explain)?;
        let (mut swept, me) = (Swept::default(), Owner::this_process());
        for folder in list.common_prefixes {
            let name = folder.filename().unwrap_or_default();
            match Session::from_folder(name) {
                Some(session) if name.starts_with(SESSION_PREFIX) && session != self.session => {}
                _ => continue,
            }
            if self.is_dead(&folder, now.into(), &me).await? {
                swept += self.remove_session(&folder).await?;
            } else {
                swept.living += 1;
            }
        }
        Ok(swept)
    }

    /// Whether nobody can own a session any more.
    async fn is_dead(&self, folder: &Path, now: SystemTime, me: &Owner) -> Result<bool, StorageError> {
        let path = folder.clone().join(MARKER);
        let read = async || self.client.objects.get(&path).await?.bytes().await;
        let owner = match self.attempt(0, read).await {
            Ok(text) => std::str::from_utf8(&text).ok().and_then(Owner::from_text),
            Err(Failure::Answer(Error::NotFound { .. })) => None,
            Err(failure) => return Err(self.explain("read a session's marker", &failure)),
        };
        let newest = self.objects_of(folder).await?.iter().map(|object| SystemTime::from(object.last_modified)).max();
        let silent = newest.map_or(Duration::MAX, |newest| now.duration_since(newest).unwrap_or(Duration::ZERO));
        Ok(marker::is_dead(owner.as_ref(), me, silent))
    }

    async fn objects_of(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StorageError> {
        let list = async || self.client.objects.list(Some(folder)).try_collect::<Vec<_>>().await;
        self.attempt(0, list).await.map_err(|failure| self.explain("list a session's objects", &failure))
    }

    /// Removes a session's objects and gives its uploads up; the marker goes last, so that an interrupted sweep can be
    /// taken up again.
    pub(super) async fn remove_session(&self, folder: &Path) -> Result<Swept, StorageError> {
        let mut swept = Swept { sessions: 1, ..Swept::default() };
        for object in self.objects_of(folder).await? {
            let name = object.location.filename().unwrap_or_default();
            if name == MARKER {
                continue;
            }
            if let Some(segment) = name.strip_suffix(UPLOAD) {
                let read = async || self.client.objects.get(&object.location).await?.bytes().await;
                let id =
                    self.attempt(0, read).await.map_err(|failure| self.explain("read an upload's note", &failure))?;
                self.abort(&folder.clone().join(segment), &String::from_utf8_lossy(&id).into_owned()).await?;
            }
            self.delete(&object.location).await?;
            swept += Swept { files: 1, bytes: object.size, ..Swept::default() };
        }
        self.delete(&folder.clone().join(MARKER)).await?;
        Ok(swept)
    }
}
