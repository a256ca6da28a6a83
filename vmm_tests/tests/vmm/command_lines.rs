// SPDX-License-Identifier: MIT
//! later
