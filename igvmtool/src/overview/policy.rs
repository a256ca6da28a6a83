// SPDX-License-Identifier: MIT
//! Policies bit by bit (sev.md 1.3 for SEV and SEV-SNP, igvm-format section 2 for TDX and CCA).
//!
//! Always true: every bit that is set appears in some field, reserved ones as such. Not here: whether a
//! policy is allowed (`vm_loaders::igvm`, codes `policy-*`).

use super::schema::{Field, Hex, Policy};
use launch_plan::{CcaPolicy, Isolation};

/// One-bit flags of a policy: bit, name, meaning of 0, meaning of 1.
type Flag = (u32, &'static str, &'static str, &'static str);

const SNP: &[Flag] = &[
    (16, "smt", "not allowed", "allowed"),
    (17, "must be one", "zero, which firmware refuses", "one"),
    (18, "migration agent", "not allowed", "allowed, which kvm refuses"),
    (19, "debug", "not allowed", "allowed"),
    (20, "single socket", "not required", "required"),
    (21, "cxl", "not allowed", "allowed"),
    (22, "aes-256-xts memory", "not required", "required"),
    (23, "rapl", "may run", "must be off"),
    (24, "ciphertext hiding", "not required", "required"),
    (25, "page swap", "allowed", "not allowed"),
];

const SEV: &[Flag] = &[
    (0, "debug", "allowed", "not allowed"),
    (1, "key sharing", "allowed", "not allowed"),
    (2, "encrypted state (es)", "not required", "required"),
    (3, "sending to another host", "allowed", "not allowed"),
    (4, "sending outside the domain", "allowed", "not allowed"),
    (5, "sending to a host without sev", "allowed", "not allowed"),
];

const TDX: &[Flag] = &[
    (0, "debug", "not allowed", "allowed"),
    (1, "sept #ve", "enabled", "disabled"),
    (2, "migration", "not allowed", "allowed"),
];

const CCA: &[Flag] = &[
    (0, "debug", "", ""),
    (1, "shared memory encryption context", "", ""),
];

fn flags(value: u64, flags: &[Flag], fields: &mut Vec<Field>) {
    fields.extend(flags.iter().map(|&(bit, name, zero, one)| {
        let text = if value >> bit & 1 == 0 { zero } else { one };
        Field::new(format!("bit {bit} {name}"), text)
    }));
}

/// Adds a field for bits that no name covers.
fn reserved(value: u64, known: u64, fields: &mut Vec<Field>) {
    if value & !known != 0 {
        fields.push(Field::new("reserved bits", format!("{:#x}", value & !known)));
    }
}

fn mask(flags: &[Flag]) -> u64 {
    flags.iter().map(|flag| 1_u64 << flag.0).sum()
}

/// The fields of a guest policy.
pub(crate) fn guest(isolation: Isolation, value: u64) -> Policy {
    let mut fields = Vec::new();
    let byte = |at: u32| value >> at & 0xFF;
    let known = match isolation {
        Isolation::Snp => {
            fields.push(Field::new(
                "bits 0-15 firmware abi",
                format!("{}.{} or later", byte(8), byte(0)),
            ));
            flags(value, SNP, &mut fields);
            0xFFFF | mask(SNP)
        }
        Isolation::Sev | Isolation::SevEs => {
            flags(value, SEV, &mut fields);
            fields.push(Field::new(
                "bits 16-31 firmware api",
                format!("{}.{} or later", byte(16), byte(24)),
            ));
            0xFFFF_0000 | mask(SEV)
        }
        Isolation::Tdx => {
            flags(value, TDX, &mut fields);
            mask(TDX)
        }
        Isolation::Native | Isolation::Vsm | Isolation::Cca => {
            fields.push(Field::new("meaning", "none: the platform takes no guest policy"));
            u64::MAX
        }
    };
    reserved(value, known, &mut fields);
    Policy {
        value: Hex(value),
        fields,
    }
}

/// The fields of a realm policy; its value is that of the attributes required one.
pub(crate) fn realm(policy: &CcaPolicy) -> Policy {
    let mut fields: Vec<Field> = CCA
        .iter()
        .map(|&(bit, name, ..)| {
            let zero = policy.required_zeroes >> bit & 1 == 1;
            let one = policy.required_ones >> bit & 1 == 1;
            let text = match (zero, one) {
                (false, false) => "may be either",
                (true, false) => "must be off",
                (false, true) => "must be on",
                (true, true) => "must be both, which is impossible",
            };
            Field::new(format!("bit {bit} {name}"), text)
        })
        .collect();
    reserved(
        policy.required_zeroes | policy.required_ones,
        mask(CCA),
        &mut fields,
    );
    let hash = match policy.hash_algorithm {
        0 => "sha-256".to_owned(),
        1 => "sha-512".to_owned(),
        2 => "sha-384".to_owned(),
        other => format!("unknown ({other})"),
    };
    fields.push(Field::new("hash algorithm", hash));
    let activation = match policy.lfa_policy {
        0 => "refused".to_owned(),
        1 => "allowed".to_owned(),
        other => format!("unknown ({other})"),
    };
    fields.push(Field::new("live firmware activation", activation));
    Policy {
        value: Hex(policy.required_ones),
        fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(policy: &Policy) -> Vec<String> {
        policy
            .fields
            .iter()
            .map(|f| format!("{}: {}", f.name, f.value))
            .collect()
    }

    #[test]
    fn every_bit_of_a_policy_is_named() {
        // Flipping any bit changes the text, whatever the platform with a policy.
        for (isolation, width) in [
            (Isolation::Snp, 64),
            (Isolation::Sev, 64),
            (Isolation::SevEs, 64),
            (Isolation::Tdx, 64),
        ] {
            let base = text(&guest(isolation, 0));
            for bit in 0..width {
                assert_ne!(text(&guest(isolation, 1 << bit)), base, "{isolation} bit {bit}");
            }
        }
    }

    #[test]
    fn usual_snp_policy_reads_as_amd_names_it() {
        let fields = text(&guest(Isolation::Snp, 0x3_011F));
        assert_eq!(fields[0], "bits 0-15 firmware abi: 1.31 or later");
        assert!(fields.contains(&"bit 16 smt: allowed".to_owned()));
        assert!(fields.contains(&"bit 17 must be one: one".to_owned()));
        assert!(fields.contains(&"bit 19 debug: not allowed".to_owned()));
    }

    #[test]
    fn reserved_bits_are_named_as_such() {
        let fields = text(&guest(Isolation::Tdx, 1 << 40));
        assert_eq!(fields.last().unwrap(), "reserved bits: 0x10000000000");
    }

    #[test]
    fn realm_policy_names_its_attributes() {
        let policy = CcaPolicy {
            required_zeroes: 1,
            required_ones: 6,
            hash_algorithm: 2,
            lfa_policy: 1,
        };
        assert_eq!(
            text(&realm(&policy)),
            [
                "bit 0 debug: must be off",
                "bit 1 shared memory encryption context: must be on",
                "reserved bits: 0x4",
                "hash algorithm: sha-384",
                "live firmware activation: allowed",
            ]
        );
    }
}
