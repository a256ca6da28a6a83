// SPDX-License-Identifier: MIT
//! (being written)
#![no_std]
