//! Matrices times vectors: where nearly all time goes.
//!
//! Each output is one strictly sequential accumulation over k, from +0. Vector instructions run
//! across outputs, sixteen at a time, so their width does not show in the result; threads split
//! outputs, so their number does not either. Weights stay in the format of their file, repacked into
//! panels of sixteen rows; with quantised weights the products of a block are integers, exact in any
//! order, and only the steps from block to block are f32. `NUMERICS.md` has every step.

mod formats;
mod kernels;
mod pack;

pub use crate::plan::Plan;
pub use formats::Format;

use crate::{
    activation::Activations,
    isa::{Isa, Work, dispatch},
    plan::Shared,
};
use kernels::Kernel;
use pack::{Layout, Line};

/// Outputs in a panel.
pub const PANEL: usize = crate::isa::LANES;
/// Tasks for each thread: enough that one thread's delay is shared out among the others.
const TASKS_PER_THREAD: usize = 8;

/// Why a matrix was not packed. Weights come from strangers: nothing in them may panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    #[error("{bytes} bytes are not {n} × {k} weights of {format:?}")]
    Length { bytes: usize, n: usize, k: usize, format: Format },
    #[error("rows of {k} weights are not whole blocks of {block_elements}")]
    PartialBlock { k: usize, block_elements: usize },
    #[error("a weight or scale is not a finite number")]
    NotFinite,
}

/// An n × k matrix of weights, packed.
#[derive(Clone, Debug)]
pub struct Matrix {
    format: Format,
    n: usize,
    k: usize,
    /// Panels, one after another, each as its `Layout` says; the last one padded with zeros.
    lines: Box<[Line]>,
}

impl Matrix {
    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows, that is outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns, that is elements of an activation vector.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// `y[i] = W · x[i]` for each of the m vectors of `x`; `y` is m × n, row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn multiply(&self, x: &mut Activations, y: &mut [f32], plan: &Plan) {
        multiply_all([(self, y)], x, plan);
    }

    /// Panels, and how many of them a task takes.
    fn split(&self, plan: &Plan) -> (usize, usize) {
        let panels = self.n.div_ceil(PANEL);
        (panels, panels.div_ceil(plan.pool.threads() * TASKS_PER_THREAD).max(1))
    }
}

/// Several matrices times the same vectors, in one go: fewer meetings of the threads.
///
/// # Panics
/// If the lengths do not fit.
pub fn multiply_all<const N: usize>(products: [(&Matrix, &mut [f32]); N], x: &mut Activations, plan: &Plan) {
    let m = x.m();
    let mut outputs = 0;
    for (matrix, y) in &products {
        assert_eq!(x.k(), matrix.k, "x is m × k");
        assert_eq!(y.len(), m * matrix.n, "y is m × n");
        outputs += matrix.n;
        if matrix.format.is_quantised() {
            x.quantise(plan);
        }
    }
    let (view, k) = (x.view(), x.k());
    let products = products.map(|(matrix, y)| {
        let (panels, share) = matrix.split(plan);
        Product { matrix, y: Shared::of(y), panels, share, tasks: panels.div_ceil(share) }
    });
    let tasks = products.iter().map(|product| product.tasks).sum();
    plan.run(tasks, m * outputs * k, &|_, mut index| {
        for product in &products {
            if index < product.tasks {
                let first = index * product.share;
                let panels = first..(first + product.share).min(product.panels);
                let task = Task { product, x: &view, m, panels };
                return product.matrix.format.dispatch(plan, task);
            }
            index -= product.tasks;
        }
    });
}

/// One matrix and where its outputs go.
struct Product<'a> {
    matrix: &'a Matrix,
    /// Tasks write to the columns of their own panels only.
    y: Shared<f32>,
    panels: usize,
    /// Panels of a task.
    share: usize,
    tasks: usize,
}

/// Some panels of a product.
struct Task<'a> {
    product: &'a Product<'a>,
    x: &'a crate::activation::View<'a>,
    m: usize,
    panels: std::ops::Range<usize>,
}

/// A task with its format's kernel.
struct TaskOf<'a, K>(Task<'a>, std::marker::PhantomData<K>);

impl Format {
    fn dispatch(self, plan: &Plan, task: Task<'_>) {
        fn with<K: Kernel>(plan: &Plan, task: Task<'_>) {
            dispatch(plan.level, TaskOf::<K>(task, std::marker::PhantomData));
        }
        match self {
            Self::F32 => with::<kernels::F32>(plan, task),
            Self::F16 => with::<kernels::F16>(plan, task),
            Self::Bf16 => with::<kernels::Bf16>(plan, task),
            Self::Q8_0 => with::<kernels::Q8_0>(plan, task),
            Self::Q4_0 => with::<kernels::Q4_0>(plan, task),
            Self::Q4K => with::<kernels::Q4K>(plan, task),
            Self::Q6K => with::<kernels::Q6K>(plan, task),
        }
    }
}

impl<K: Kernel> Work for TaskOf<'_, K> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        let Task { product: Product { matrix, y, .. }, x, m, panels } = self.0;
        let layout = Layout::of(matrix.format, matrix.k);
        for panel in panels {
            let outputs = (matrix.n - panel * PANEL).min(PANEL);
            // SAFETY: the matrix has the panel, aligned as its lines are; x has m vectors of k
            // elements, quantised if the format needs it; y is m × n, and this task alone writes the
            // panel's columns.
            unsafe {
                let weights = matrix.lines.as_ptr().cast::<u8>().add(panel * layout.panel);
                kernels::panel::<S, K>(weights, &layout, x, m, y.at(panel * PANEL), matrix.n, outputs);
            }
        }
    }
}

#[cfg(test)]
mod tests;
