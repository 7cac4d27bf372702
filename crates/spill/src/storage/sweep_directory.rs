//! What dead sessions left in a directory.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::errno::refused;
use super::marker::{Owner, is_dead};
use super::session_dir::{SessionDir, open_dir};
use super::{StorageError, Swept};
use crate::{SESSION_PREFIX, Session};

/// Removes every session whose lock nobody holds. On file systems that other machines share, where locks may count on
/// one machine only, the owner must be of this machine too, or silent for an hour.
pub(super) fn sweep(directory: &Path) -> Result<Swept, StorageError> {
    let parent = match open_dir(rustix::fs::CWD, directory) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(Swept::default()),
        Err(errno) => return Err(refused("open the directory", errno)),
    };
    let shared = rustix::fs::fstatfs(&parent).is_ok_and(|stat| is_shared(stat.f_type as u64));
    let me = Owner::this_process();
    let mut swept = Swept::default();
    for entry in rustix::fs::Dir::read_from(&parent).map_err(|errno| refused("read the directory", errno))? {
        let entry = entry.map_err(|errno| refused("read the directory", errno))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !name.starts_with(SESSION_PREFIX) || Session::from_folder(name).is_none() {
            continue;
        }
        let Some(session) = SessionDir::of_dead(&parent, name) else {
            swept.living += 1;
            continue;
        };
        if shared && may_live_elsewhere(&session, &me) {
            swept.living += 1;
            continue;
        }
        let (files, bytes) =
            session.remove(&parent, name).map_err(|errno| refused("remove a dead session's files", errno))?;
        swept += Swept { sessions: 1, files, bytes, living: 0 };
    }
    Ok(swept)
}

fn may_live_elsewhere(session: &SessionDir, me: &Owner) -> bool {
    let (owner, seen) = session.owner();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    !is_dead(owner.as_ref(), me, now.saturating_sub(seen))
}

/// NFS, SMB, CIFS, SMB2, FUSE, Ceph, 9P, AFS, Lustre, GFS2, OCFS2, GPFS, `OrangeFS`.
fn is_shared(kind: u64) -> bool {
    const SHARED: [u64; 13] = [
        0x6969,
        0x517B,
        0xFF53_4D42,
        0xFE53_4D42,
        0x6573_5546,
        0x00C3_6400,
        0x0102_1997,
        0x5346_414F,
        0x0BD0_0BD0,
        0x0116_1970,
        0x7461_636F,
        0x4750_4653,
        0x2003_0528,
    ];
    SHARED.contains(&(kind & 0xFFFF_FFFF))
}
