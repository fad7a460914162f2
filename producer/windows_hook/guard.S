/* u32 guard_call(void (*step)(void *), void *argument): rcx, rdx.
 * The scope table says: for whatever is raised between `begin` and `end`, ask `guard_filter`, then continue at `caught`. The
 * frame is 32 bytes for whom we call, and 8 in which `guard_filter` leaves the code: Windows has it in eax at `caught`, wine
 * has not. */
    .text
    .globl guard_call
    .def guard_call; .scl 2; .type 32; .endef
    .seh_proc guard_call
guard_call:
    subq $40, %rsp
    .seh_stackalloc 40
    .seh_endprologue
    movq %rcx, %rax
    movq %rdx, %rcx
begin:
    call *%rax
    nop
end:
    xorl %eax, %eax
    addq $40, %rsp
    ret
caught:
    movl 32(%rsp), %eax
    addq $40, %rsp
    ret
    .seh_handler __C_specific_handler, @except
    .seh_handlerdata
    .long 1 /* one scope */
    .rva begin
    .rva end
    .rva guard_filter
    .rva caught
    .text
    .seh_endproc

/* LONG guard_filter(EXCEPTION_POINTERS *pointers, void *frame): whatever it is, EXCEPTION_EXECUTE_HANDLER. Code 0 becomes 1. */
    .def guard_filter; .scl 3; .type 32; .endef
    .seh_proc guard_filter
guard_filter:
    .seh_endprologue
    movq (%rcx), %rax
    movl (%rax), %ecx
    testl %ecx, %ecx
    movl $1, %eax
    cmovzl %eax, %ecx
    movl %ecx, 32(%rdx)
    ret
    .seh_endproc
