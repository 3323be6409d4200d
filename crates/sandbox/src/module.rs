//! What a module may be, and how its calls are counted.
//!
//! Machines have different stacks, so a deep recursion must not end where the stack does: every function
//! adds its [`size`](Sizes) to a counter when it is entered, and stops the run beyond
//! [`ModuleLimits::call_depth_max`]; whoever called it sets the counter back. The counter is a global that
//! is added to the module, which its own code cannot name.

use crate::limits::{MODULE_LIMITS, ModuleLimits};
use std::{convert::Infallible, time::Duration};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ExportKind, ExportSection, Function, GlobalSection, GlobalType, Instruction,
    SectionId, ValType,
    reencode::{Error as ReencodeError, Reencode, utils},
};
use wasmparser::{
    BinaryReaderError, CompositeInnerType, CustomSectionReader, ExportSectionReader, ExternalKind, FuncToValidate,
    FunctionBody, GlobalSectionReader, Operator, Parser, Payload, TypeRef, Validator, ValidatorResources, WasmFeatures,
};

/// The name under which the counter of depth is exported.
pub(crate) const DEPTH: &str = "althing:call-depth";

/// Why a module is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    #[error("the module is malformed, or needs what is not allowed: {0}")]
    Malformed(String),
    #[error("the module has {got} {what}, at most {max} are allowed")]
    TooLarge { what: &'static str, got: u64, max: u64 },
    #[error("the module imports {module}.{name}, which is not in the ABI: see ABI.md for what is")]
    ForbiddenImport { module: String, name: String },
    #[error("the module imports {module}.{name} with another type than the ABI's")]
    ImportType { module: String, name: String },
    #[error("the module exports no {0}")]
    MissingExport(&'static str),
    #[error("the module is for version {got} of the ABI; this program has {supported}")]
    AbiVersion { got: i32, supported: i32 },
    #[error("init failed: {0}")]
    Init(crate::Failure),
    /// The same module may do on another machine.
    #[error("init gave no result: {0}")]
    InitNoResult(crate::NoResult),
    /// The same.
    #[error("the module did not compile within {} s", .0.as_secs())]
    SlowCompile(Duration),
    /// The same.
    #[error("the module does not compile: {0}")]
    Compile(String),
}

impl From<BinaryReaderError> for ModuleError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What modules may use: what compilers make of ordinary programs, and nothing that machines do differently.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::EXTENDED_CONST)
    .difference(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::FLOATS);

/// What is known of a module's functions before its code is changed.
struct Sizes {
    /// Whether something is to be done once, before all runs.
    has_init: bool,
    /// Globals that it defines: the counter comes after them.
    globals: u32,
    /// Of each function that it defines.
    functions: Vec<FunctionSize>,
}

#[derive(Clone, Copy)]
struct FunctionSize {
    params: u32,
    locals: u32,
    /// What a call adds to the counter: 128 for the frame, and 16 for each value that may be on the stack.
    depth: u32,
}

/// A module with its counter.
pub struct Counted {
    pub module: Vec<u8>,
    /// Whether it exports `init` or `_initialize`.
    pub has_init: bool,
}

/// Checks a module and gives it its counter.
///
/// # Errors
/// Why it cannot be run, the same on every machine.
pub fn prepare(module: &[u8]) -> Result<Counted, ModuleError> {
    let sizes = measure(module, &MODULE_LIMITS)?;
    let has_init = sizes.has_init;
    let mut encoder =
        Counting { sizes, next: 0, depth_max: MODULE_LIMITS.call_depth_max.cast_signed(), has_counter: false };
    let mut output = wasm_encoder::Module::new();
    let counted = encoder.parse_core_module(&mut output, Parser::new(0), module);
    counted.map_err(|error| ModuleError::Malformed(error.to_string()))?;
    Ok(Counted { module: output.finish(), has_init })
}

fn at_most(what: &'static str, got: u64, max: u64) -> Result<(), ModuleError> {
    if got > max { Err(ModuleError::TooLarge { what, got, max }) } else { Ok(()) }
}

fn measure(module: &[u8], limits: &ModuleLimits) -> Result<Sizes, ModuleError> {
    at_most("bytes", module.len() as u64, limits.module_bytes_max as u64)?;
    let mut validator = Validator::new_with_features(FEATURES);
    let items = |what, got: u32| at_most(what, got.into(), limits.items_max.into());
    let mut sizes = Sizes { has_init: false, globals: 0, functions: Vec::new() };
    let (mut table_elements, mut flow, mut has_memory) = (0u64, 0u64, false);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding: wasmparser::Encoding::Component, .. } => {
                return Err(ModuleError::Malformed("it is a component, not a module".into()));
            }
            Payload::TypeSection(section) => items("types", section.count())?,
            Payload::ImportSection(section) => {
                items("imports", section.count())?;
                for import in section.clone().into_imports() {
                    let import = import?;
                    if !matches!(import.ty, TypeRef::Func(_)) {
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        return Err(ModuleError::ForbiddenImport { module, name });
                    }
                }
            }
            Payload::FunctionSection(section) => {
                at_most("functions", section.count().into(), limits.functions_max.into())?;
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    table_elements = table_elements.saturating_add(table?.ty.initial);
                }
                at_most("table entries", table_elements, limits.table_elements_max)?;
            }
            Payload::MemorySection(section) => has_memory = section.count() > 0,
            Payload::GlobalSection(section) => {
                items("globals", section.count())?;
                sizes.globals = section.count();
            }
            Payload::ExportSection(section) => {
                items("exports", section.count())?;
                sizes.has_init = check_exports(section.clone())?;
            }
            Payload::ElementSection(section) => items("segments of elements", section.count())?,
            Payload::DataSection(section) => items("segments of data", section.count())?,
            _ => {}
        }
        if let wasmparser::ValidPayload::Func(function, body) = validator.payload(&payload)? {
            let (size, branches) = function_size(function, &body, limits)?;
            // The counter's own local and branch are not the module's.
            flow += u64::from(size.params + size.locals) * branches;
            at_most("locals times branches", flow, limits.flow_max)?;
            sizes.functions.push(size);
        }
    }
    if !has_memory {
        return Err(ModuleError::MissingExport("memory"));
    }
    Ok(sizes)
}

/// Whether all that the ABI asks for is there; whether there is an `init`.
fn check_exports(section: ExportSectionReader<'_>) -> Result<bool, ModuleError> {
    let (mut memory, mut run, mut version, mut init) = (false, false, false, false);
    for export in section {
        let export = export?;
        match (export.name, export.kind) {
            ("memory", ExternalKind::Memory) => memory = true,
            ("run", ExternalKind::Func) => run = true,
            ("init" | "_initialize", ExternalKind::Func) => init = true,
            ("abi_version", ExternalKind::Func) => version = true,
            (DEPTH, _) => return Err(ModuleError::Malformed(format!("it exports {DEPTH}, a name of the host's"))),
            _ => {}
        }
    }
    for (name, there) in [("memory", memory), ("function run", run), ("function abi_version", version)] {
        if !there {
            return Err(ModuleError::MissingExport(name));
        }
    }
    Ok(init)
}

/// A function's size, and how many branches and joins it has.
fn function_size(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    limits: &ModuleLimits,
) -> Result<(FunctionSize, u64), ModuleError> {
    let length = (body.range().end - body.range().start) as u64;
    at_most("bytes of code in a function", length, limits.function_bytes_max as u64)?;
    let ty = wasmparser::WasmModuleResources::sub_type_at(&function.resources, function.ty);
    let params = match ty.map(|ty| &ty.composite_type.inner) {
        Some(CompositeInnerType::Func(ty)) => u32::try_from(ty.params().len()).unwrap_or(u32::MAX),
        _ => return Err(ModuleError::Malformed("a function whose type is none".into())),
    };
    let mut locals = 0u32;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(group?.0);
    }
    at_most("locals in a function", u64::from(params) + u64::from(locals), limits.locals_max.into())?;
    let mut validator = function.into_validator(Default::default());
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let (mut operators, mut height, mut branches) = (wasmparser::OperatorsReader::new(reader), 0, 0);
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        validator.op(offset, &operator)?;
        branches += match &operator {
            Operator::BrTable { targets } => 1 + u64::from(targets.len()),
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. } => 1,
            _ => 0,
        };
        height = height.max(validator.operand_stack_height());
    }
    operators.finish()?;
    Ok((FunctionSize { params, locals, depth: 128 + 16 * (params + locals + height) }, branches))
}

/// Writes a module with the counter.
struct Counting {
    sizes: Sizes,
    /// Which of the functions comes next.
    next: usize,
    depth_max: i32,
    has_counter: bool,
}

type Reencoded<T> = Result<T, ReencodeError<Infallible>>;

impl Counting {
    fn counter(&self) -> u32 {
        self.sizes.globals
    }

    fn add_counter(&mut self, globals: &mut GlobalSection) {
        self.has_counter = true;
        globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(0));
    }
}

impl Reencode for Counting {
    type Error = Infallible;

    // Names and other notes are of no use to us.
    fn parse_custom_section(
        &mut self,
        _module: &mut wasm_encoder::Module,
        _section: CustomSectionReader<'_>,
    ) -> Reencoded<()> {
        Ok(())
    }

    fn parse_global_section(&mut self, globals: &mut GlobalSection, section: GlobalSectionReader<'_>) -> Reencoded<()> {
        utils::parse_global_section(self, globals, section)?;
        self.add_counter(globals);
        Ok(())
    }

    /// For a module that has no globals.
    fn intersperse_section_hook(
        &mut self,
        module: &mut wasm_encoder::Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Reencoded<()> {
        // There is an export section in any case, and it follows that of globals.
        if before == Some(SectionId::Export) && !self.has_counter {
            let mut globals = GlobalSection::new();
            self.add_counter(&mut globals);
            module.section(&globals);
        }
        Ok(())
    }

    fn parse_export_section(&mut self, exports: &mut ExportSection, section: ExportSectionReader<'_>) -> Reencoded<()> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(DEPTH, ExportKind::Global, self.counter());
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Reencoded<()> {
        let FunctionSize { params, locals, depth } = self.sizes.functions[self.next];
        self.next += 1;
        // One more local, after those that are there: the depth of this call.
        let (counter, own) = (self.counter(), params + locals);
        let mut groups = Vec::new();
        for group in body.get_locals_reader()? {
            let (count, ty) = group?;
            groups.push((count, self.val_type(ty)?));
        }
        groups.push((1, ValType::I32));
        let mut function = Function::new(groups);
        for instruction in [
            Instruction::GlobalGet(counter),
            Instruction::I32Const(depth.cast_signed()),
            Instruction::I32Add,
            Instruction::LocalTee(own),
            Instruction::GlobalSet(counter),
            Instruction::LocalGet(own),
            Instruction::I32Const(self.depth_max),
            Instruction::I32GtU,
            Instruction::If(BlockType::Empty),
            Instruction::Unreachable,
            Instruction::End,
        ] {
            function.instruction(&instruction);
        }
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            let calls = matches!(operator, Operator::Call { .. } | Operator::CallIndirect { .. });
            function.instruction(&self.instruction(operator)?);
            if calls {
                function.instruction(&Instruction::LocalGet(own));
                function.instruction(&Instruction::GlobalSet(counter));
            }
        }
        code.function(&function);
        Ok(())
    }
}
