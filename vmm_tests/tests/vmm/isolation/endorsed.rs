// SPDX-License-Identifier: MIT
//! Signed files: what the firmware would refuse is refused before the launch, with its reason.

use super::{field, launched, on_model, refused};
use crate::images;
use launch_plan::IdBlock;
use std::path::Path;
use vm_loaders::igvm::File;
use vmm_tests::files::TestFile;
use vmm_tests::programs;

/// `file` with an ID block, made with `options` of `igvmtool sign`.
#[track_caller]
pub(super) fn sign(file: &Path, options: &[&str]) -> TestFile {
    sign_with("id-key.pem", file, options)
}

/// The same with a key of igvmtool's tests.
#[track_caller]
fn sign_with(key: &str, file: &Path, options: &[&str]) -> TestFile {
    let signed = TestFile::new("signed.igvm", &[]);
    let key = programs::repository().join("igvmtool/tests/data").join(key);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let args = [
        ["sign".to_owned(), text(file)].to_vec(),
        [
            "-o".to_owned(),
            text(signed.path()),
            "--id-key".to_owned(),
            text(&key),
        ]
        .to_vec(),
        options.iter().map(|&option| option.to_owned()).collect(),
    ]
    .concat();
    let out = programs::run_igvmtool(&args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    signed
}

/// The ID block of the SNP plan of `file`.
fn snp_plan_block(file: &Path) -> IdBlock {
    let bytes = std::fs::read(file).unwrap();
    let plan = File::read(&bytes)
        .unwrap()
        .plan(launch_plan::Isolation::Snp)
        .unwrap();
    *plan.endorsements.id_block.unwrap()
}

/// The SNP plan of `file`, changed and encoded again.
fn change(file: &Path, change: impl FnOnce(&mut launch_plan::LaunchPlan<'_>)) -> TestFile {
    let bytes = std::fs::read(file).unwrap();
    let mut plan = File::read(&bytes)
        .unwrap()
        .plan(launch_plan::Isolation::Snp)
        .unwrap();
    change(&mut plan);
    TestFile::new("changed.igvm", &images::igvm(&[plan]))
}

#[test]
fn signed_file_is_launched_and_every_kind_of_wrong_signature_is_refused() {
    let file = super::files::guest(&[launch_plan::Isolation::Snp], 2);
    let signed = sign(file.path(), &[]);
    let vm = |file: &TestFile| on_model("snp", file.path()).args(["-p", "2"]);
    let ended = launched(&vm(&signed));
    assert_eq!(field(&ended.stdout, "policy"), "0x30000");
    // Another digest: another number of processors, and another page.
    let message = refused(&on_model("snp", signed.path()).args(["-p", "3"]));
    assert!(message.contains("BAD_MEASUREMENT"), "{message}");
    assert!(message.contains("signed for its 2 contexts"), "{message}");
    // The same block signed with another key, under the name of the first.
    let another = sign_with("other-id-key.pem", file.path(), &[]);
    let other_key = change(signed.path(), |plan| {
        let theirs = snp_plan_block(another.path());
        plan.endorsements.id_block.as_mut().unwrap().id_signature = theirs.id_signature;
    });
    let message = refused(&vm(&other_key));
    assert!(
        message.contains("the signature of the id block does not verify with its key; the firmware would answer BAD_SIGNATURE"),
        "{message}"
    );
    launched(&vm(&another));
    // A key that is none.
    let no_key = change(signed.path(), |plan| {
        let block = plan.endorsements.id_block.as_mut().unwrap();
        std::mem::swap(&mut block.id_key.qx, &mut block.id_key.qy);
    });
    let message = refused(&vm(&no_key));
    assert!(
        message.contains("the id key is not a point on curve p-384; the firmware would answer INVALID_PARAM"),
        "{message}"
    );
    let other_signature = change(signed.path(), |plan| {
        plan.endorsements.id_block.as_mut().unwrap().id_signature.r[0] ^= 1;
    });
    let message = refused(&vm(&other_signature));
    assert!(message.contains("BAD_SIGNATURE"), "{message}");
    // Another policy: in the file, and on the command line.
    let other_policy = change(signed.path(), |plan| plan.facts.policy = Some(0xB_0000));
    let message = refused(&vm(&other_policy));
    assert!(message.contains("BAD_SIGNATURE"), "{message}");
    let message = refused(&on_model("snp,policy=0xb0000", signed.path()).args(["-p", "2"]));
    assert!(message.contains("POLICY_FAILURE"), "{message}");
}

#[test]
fn block_in_file_order_is_refused_before_the_launch_with_the_explanation() {
    // The context stands before the pages, as igvmfilegen and igvm-wrap write files.
    let file = super::files::context_first();
    let wrong = sign(file.path(), &["--profile", "file-order"]);
    let message = refused(&on_model("snp", wrong.path()));
    assert!(message.contains("BAD_MEASUREMENT"), "{message}");
    assert!(
        message.contains("is the one of the file's own order, but on kvm save areas are measured last"),
        "{message}"
    );
    let right = sign(file.path(), &[]);
    let ended = launched(&on_model("snp", right.path()));
    assert_eq!(
        field(&ended.stdout, "digest"),
        super::measured(right.path(), "snp", 1)
    );
}
