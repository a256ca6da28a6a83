// SPDX-License-Identifier: MIT
//! Later.
