//! A segment as this process has it mapped: that in memory from the beginning, the file when it is needed first.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use heliostat_shm::map::{DataMap, DraftMap, MapError, ReadMap, Window};
use heliostat_shm::memfd::Memfd;

use super::Inner;
use super::touched::{Known, Touched};
use crate::layout::FILE_SEGMENT;
use crate::link::LeaseError;

/// A mapped segment.
pub(super) struct Memory {
    /// For writing by system call; the mappings don't need it.
    pub(super) file: Memfd,
    /// Of a file on a disk nothing is gained by knowing which pages are mapped.
    touched: Option<Touched>,
    pub(super) data: Arc<DataMap>,
    pub(super) read: ReadMap,
    pub(super) window: Arc<Window>,
    pub(super) drafts: DraftMap,
}

/// The file for what memory can't take.
#[derive(Default)]
pub(super) struct File {
    given: Mutex<Option<Memfd>>,
    mapped: OnceLock<Memory>,
}

impl Memory {
    /// Maps the memory of a store.
    pub(super) fn of(segment: Memfd) -> Result<Self, MapError> {
        let touched = Touched::new(segment.size());
        Ok(Self { touched: Some(touched), ..Self::map(segment)? })
    }

    fn map(file: Memfd) -> Result<Self, MapError> {
        Ok(Self {
            data: Arc::new(DataMap::new(&file)?),
            read: ReadMap::new(&file)?,
            window: Arc::new(Window::new(&file)?),
            drafts: DraftMap::new(&file)?,
            touched: None,
            file,
        })
    }

    /// How well this process knows a range's pages.
    pub(super) fn known(&self, offset: u64, length: u64) -> Known {
        self.touched.as_ref().map_or(Known::No, |touched| touched.known(offset, length))
    }

    pub(super) fn mark(&self, offset: u64, length: u64, known: Known) {
        if let Some(touched) = &self.touched {
            touched.mark(offset, length, known);
        }
    }
}

impl File {
    pub(super) fn new(given: Option<Memfd>) -> Self {
        Self { given: Mutex::new(given), mapped: OnceLock::new() }
    }

    fn map(&self) -> Result<&Memory, String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = self.mapped.get() {
            return Ok(mapped);
        }
        let file = given.take().ok_or_else(|| "this store keeps no objects in files".to_owned())?;
        let again = file.share();
        match Memory::map(file) {
            Ok(memory) => Ok(self.mapped.get_or_init(|| memory)),
            Err(error) => {
                // Another time there may be room for the mapping.
                let size = error.length;
                *given = again.ok().and_then(|fd| Memfd::from_unlinked(fd, size).ok());
                Err(error.to_string())
            }
        }
    }
}

impl Inner {
    /// A segment, mapped.
    pub(super) fn segment(&self, segment: u32, requested: u64) -> Result<&Memory, LeaseError> {
        if segment != FILE_SEGMENT {
            return Ok(&self.memory);
        }
        let mapped = self.file.mapped.get().map_or_else(|| self.file.map(), Ok);
        mapped.map_err(|reason| LeaseError::NoFile { requested, reason, disk: false })
    }

    /// The segment of an object that this process has pinned or drafted: it was mapped before.
    #[inline]
    pub(super) fn mapped(&self, segment: u32) -> &Memory {
        let file = if segment == FILE_SEGMENT { self.file.mapped.get() } else { None };
        file.unwrap_or(&self.memory)
    }
}
