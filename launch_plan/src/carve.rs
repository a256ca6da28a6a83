// SPDX-License-Identifier: MIT
//! A plan without the pages of a range, for memory that turns out to be a device.
//!
//! Always true: what is left keeps its order, its contents and its origins. Not here: plans that are
//! measured; taking pages out changes a launch digest.

use crate::plan::{Contents, Import, LaunchPlan, Step, StepKind};
use std::borrow::Cow;

impl LaunchPlan<'_> {
    /// Takes the pages of `gpa..gpa + len` (whole pages) out of the plan's imports. Parameter areas stay
    /// whole: holes are not split.
    #[must_use]
    pub fn without_pages(mut self, gpa: u64, len: u64) -> Self {
        let end = gpa.saturating_add(len);
        self.steps = std::mem::take(&mut self.steps)
            .into_iter()
            .flat_map(|step| carve(step, gpa, end))
            .collect();
        self
    }
}

fn carve(step: Step<'_>, gpa: u64, end: u64) -> Vec<Step<'_>> {
    let import = match step.kind {
        StepKind::Import(import)
            if import.gpa < end
                && gpa < import.gpa.saturating_add(import.len)
                && !matches!(import.contents, Contents::Parameters(_)) =>
        {
            import
        }
        kind => return vec![Step { kind, ..step }],
    };
    let import_end = import.gpa.saturating_add(import.len);
    [(import.gpa, gpa), (end, import_end)]
        .into_iter()
        .filter(|(first, last)| first < last)
        .map(|(first, last)| Step {
            kind: StepKind::Import(part(&import, first, last)),
            origin: step.origin,
        })
        .collect()
}

/// The pages `first..end` of an import, which contains them.
fn part<'a>(import: &Import<'a>, first: u64, end: u64) -> Import<'a> {
    let at = |gpa: u64, len: usize| usize::try_from(gpa - import.gpa).unwrap_or(usize::MAX).min(len);
    let contents = match &import.contents {
        Contents::Bytes(Cow::Borrowed(bytes)) => Contents::Bytes(Cow::Borrowed(
            &bytes[at(first, bytes.len())..at(end, bytes.len())],
        )),
        Contents::Bytes(Cow::Owned(bytes)) => Contents::Bytes(Cow::Owned(
            bytes[at(first, bytes.len())..at(end, bytes.len())].to_vec(),
        )),
        other => other.clone(),
    };
    Import {
        gpa: first,
        len: end - first,
        large: false,
        kind: import.kind,
        contents,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Arch, Contents, Import, Isolation, Origin, PageKind, PlanBuilder, PlatformFacts};

    const HERE: Origin = Origin::Host("test");

    fn plan(imports: Vec<(u64, u64, Contents<'static>)>) -> crate::LaunchPlan<'static> {
        let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
        for (gpa, len, contents) in imports {
            let import = Import {
                gpa,
                len,
                large: false,
                kind: PageKind::Measured,
                contents,
            };
            builder.import(import, HERE).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn pages_on_both_sides_of_the_hole_keep_their_bytes() {
        let bytes: Vec<u8> = (0..5u8).flat_map(|page| [page + 1; 0x1000]).collect();
        let whole = plan(vec![(0x1000, 0x5000, Contents::Bytes(bytes.clone().into()))]);
        let left = whole.without_pages(0x2000, 0x2000);
        let parts = plan(vec![
            (0x1000, 0x1000, Contents::Bytes(bytes[..0x1000].to_vec().into())),
            (0x4000, 0x2000, Contents::Bytes(bytes[0x3000..].to_vec().into())),
        ]);
        assert_eq!(left, parts);
    }

    #[test]
    fn whole_imports_go_and_others_stay() {
        let whole = plan(vec![
            (0x1000, 0x1000, Contents::Zero),
            (0x2000, 0x1000, Contents::Zero),
            (0x3000, 0x1000, Contents::Zero),
        ]);
        let left = whole.without_pages(0x2000, 0x1000);
        assert_eq!(
            left,
            plan(vec![
                (0x1000, 0x1000, Contents::Zero),
                (0x3000, 0x1000, Contents::Zero)
            ])
        );
        assert_eq!(left.clone().without_pages(0x9000, 0x1000), left);
    }
}
