//! Instruction levels: which vector instructions the kernels use. All levels give the same bits.

use std::{fmt, str::FromStr};

/// One set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust; every platform.
    Scalar,
    /// 128-bit vectors; every x86-64.
    Sse2,
    /// 256-bit vectors, with F16C, which every processor with AVX2 has.
    Avx2,
    /// 512-bit vectors: AVX-512 F, BW, VL and DQ; VNNI where it is there.
    Avx512,
    /// 128-bit vectors; every aarch64. The dot product extension where it is there.
    Neon,
    /// 128-bit vectors of WebAssembly, if they were there at compile time.
    Simd128,
}

impl Level {
    /// Every level; of one architecture's levels, a faster one comes later.
    pub const ALL: [Self; 6] = [Self::Scalar, Self::Sse2, Self::Avx2, Self::Avx512, Self::Neon, Self::Simd128];

    /// Whether this machine has the level's instructions.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "wasm32")]
            Self::Simd128 => cfg!(target_feature = "simd128"),
            #[allow(unreachable_patterns)] // on some architecture
            _ => false,
        }
    }

    /// The fastest level of this machine.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(Self::Scalar)
    }

    /// The levels of this machine.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Why a text names no level that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    #[error("{0:?} is not a level: auto, avx512, avx2, sse2, neon, simd128 or scalar")]
    Unknown(String),
    #[error("this machine does not have {0}")]
    NotAvailable(Level),
}

impl FromStr for Level {
    type Err = LevelError;

    /// `auto` is the fastest level of this machine.
    fn from_str(text: &str) -> Result<Self, LevelError> {
        if text == "auto" {
            return Ok(Self::best());
        }
        let level = Self::ALL.into_iter().find(|level| level.name() == text);
        let level = level.ok_or_else(|| LevelError::Unknown(text.to_owned()))?;
        if !level.is_available() {
            return Err(LevelError::NotAvailable(level));
        }
        Ok(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_missing_levels_refused() {
        for level in Level::ALL {
            let expected = if level.is_available() { Ok(level) } else { Err(LevelError::NotAvailable(level)) };
            assert_eq!(level.to_string().parse(), expected);
        }
        assert_eq!("auto".parse(), Ok(Level::best()));
        assert_eq!("mmx".parse::<Level>(), Err(LevelError::Unknown("mmx".into())));
    }
}
