// SPDX-License-Identifier: MIT
//! Address space identifiers: which are taken, and how KVM gives them out (`spec/sev.md` 4.6).
//!
//! Always true: a freed one is not used again before the flush that KVM makes when it runs out.
//! Not here: the firmware's opinion of a number.

use crate::host::{FakeHost, Platform};
use libc::{EBUSY, ENOTTY};
use std::collections::BTreeSet;

/// Those of a host.
#[derive(Debug, Default)]
pub(crate) struct Asids {
    used: BTreeSet<u32>,
    /// Free after the next flush.
    unflushed: BTreeSet<u32>,
}

impl Asids {
    /// One for a platform: ENOTTY when it has none, EBUSY when all are taken or a cgroup has had its share.
    pub(crate) fn take(&mut self, host: &FakeHost, platform: Platform) -> Result<u32, i32> {
        let (first, last) = host.asids(platform);
        if first > last {
            return Err(ENOTTY);
        }
        if host.guest_limit.is_some_and(|limit| self.used.len() >= limit) {
            return Err(EBUSY);
        }
        let asid = self.free(first, last).or_else(|| {
            self.unflushed.clear();
            self.free(first, last)
        });
        let asid = asid.ok_or(EBUSY)?;
        self.used.insert(asid);
        Ok(asid)
    }

    fn free(&self, first: u32, last: u32) -> Option<u32> {
        (first..=last).find(|asid| !self.used.contains(asid) && !self.unflushed.contains(asid))
    }

    pub(crate) fn give_back(&mut self, asid: u32) {
        self.used.remove(&asid);
        self.unflushed.insert(asid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_asids_come_back_after_all_others() {
        let host = FakeHost {
            encryption_leaf: [0x1F, 51, 5, 4],
            ..FakeHost::snp()
        };
        let mut asids = Asids::default();
        let take = |asids: &mut Asids, platform| asids.take(&host, platform);
        assert_eq!(take(&mut asids, Platform::Snp), Ok(1));
        assert_eq!(take(&mut asids, Platform::Sev), Ok(4));
        asids.give_back(1);
        assert_eq!(take(&mut asids, Platform::SevEs), Ok(2));
        assert_eq!(take(&mut asids, Platform::SevEs), Ok(3));
        assert_eq!(take(&mut asids, Platform::Snp), Ok(1));
        assert_eq!(take(&mut asids, Platform::Snp), Err(EBUSY));
        let none = FakeHost::sev_only();
        assert_eq!(asids.take(&none, Platform::SevEs), Err(ENOTTY));
        let limited = FakeHost {
            guest_limit: Some(2),
            ..FakeHost::snp()
        };
        assert_eq!(asids.take(&limited, Platform::Snp), Err(EBUSY));
    }
}
