#include "tun/steering.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(c, d, s, o, i)                                                                                  \
	((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
/*
 * Packet bytes at offset k (and register s) into r0, host order; past the end the program ends with 0.
 * Clobbers r1 to r5.
 */
#define LOAD8(k) INSN(BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, k)
#define LOAD16(k) INSN(BPF_LD | BPF_ABS | BPF_H, 0, 0, 0, k)
#define LOAD32(k) INSN(BPF_LD | BPF_ABS | BPF_W, 0, 0, 0, k)
#define LOAD32_AT(s, k) INSN(BPF_LD | BPF_IND | BPF_W, 0, s, 0, k)
#define MOVE(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, k) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, k)
#define ALU(op, d, k) INSN(BPF_ALU64 | (op) | BPF_K, d, 0, 0, k)
#define ALU_REG(op, d, s) INSN(BPF_ALU64 | (op) | BPF_X, d, s, 0, 0)
#define JUMP(to) INSN(BPF_JMP | BPF_JA, 0, 0, to, 0)
#define JUMP_IF(op, d, k, to) INSN(BPF_JMP | (op) | BPF_K, d, 0, to, k)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

#define HASH BPF_REG_7
#define PROTO BPF_REG_8
#define AT BPF_REG_9

/* hash = (hash + r0) * an odd constant: each word reaches all the bits above its own */
#define MIX() ALU_REG(BPF_ADD, HASH, BPF_REG_0), ALU(BPF_MUL, HASH, 0x2545f491)
#define MIX_WORD(k) LOAD32(k), MIX()

int steering_attach(int tun_fd, unsigned nr_queues)
{
	/*
	 * In a TUN device's packet the IP header is at offset 0: there is no link layer. Jumps count the
	 * instructions they skip.
	 */
	const struct bpf_insn program[] = {
		MOVE(BPF_REG_6, BPF_REG_1), /* the packet loads want the context here */
		SET(HASH, 0),
		LOAD8(0),
		ALU(BPF_RSH, BPF_REG_0, 4),
		JUMP_IF(BPF_JEQ, BPF_REG_0, 6, 17), /* to IPv6 */
		JUMP_IF(BPF_JEQ, BPF_REG_0, 4, 2),
		SET(BPF_REG_0, 0),
		EXIT(),
		/* IPv4 */
		MIX_WORD(12),
		MIX_WORD(16),
		LOAD8(9),
		MOVE(PROTO, BPF_REG_0),
		LOAD16(6),
		JUMP_IF(BPF_JSET, BPF_REG_0, 0x3fff, 37), /* a fragment: to the end, ports do not count */
		LOAD8(0),
		ALU(BPF_AND, BPF_REG_0, 15),
		ALU(BPF_LSH, BPF_REG_0, 2),
		JUMP(27), /* to the ports */
		/* IPv6 */
		MIX_WORD(8),
		MIX_WORD(12),
		MIX_WORD(16),
		MIX_WORD(20),
		MIX_WORD(24),
		MIX_WORD(28),
		MIX_WORD(32),
		MIX_WORD(36),
		LOAD8(6), /* an extension header, that of fragments too, stands where TCP or UDP would */
		MOVE(PROTO, BPF_REG_0),
		SET(BPF_REG_0, 40),
		/* ports: r0 is where */
		MOVE(AT, BPF_REG_0),
		JUMP_IF(BPF_JEQ, PROTO, IPPROTO_TCP, 1),
		JUMP_IF(BPF_JNE, PROTO, IPPROTO_UDP, 3),
		LOAD32_AT(AT, 0),
		MIX(),
		/* end */
		ALU_REG(BPF_ADD, HASH, PROTO),
		ALU(BPF_MUL, HASH, 0x2545f491),
		MOVE(BPF_REG_0, HASH),
		ALU(BPF_RSH, BPF_REG_0, 32),
		ALU_REG(BPF_XOR, BPF_REG_0, HASH),
		ALU(BPF_AND, BPF_REG_0, 0x7fffffff),
		ALU(BPF_MOD, BPF_REG_0, (int)nr_queues),
		EXIT(),
	};
	union bpf_attr attr;
	int fd, err;

	/* all of it, padding too: the kernel refuses bytes that it does not know unless they are zero */
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (uintptr_t)program;
	attr.insn_cnt = ARRAY_LEN(program);
	attr.license = (uintptr_t) "GPL";
	memcpy(attr.prog_name, "sluice_steer", sizeof("sluice_steer"));
	fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	if (fd < 0)
		return -errno;
	err = ioctl(tun_fd, TUNSETSTEERINGEBPF, &fd) ? -errno : 0;
	/* The device holds a reference of its own. */
	close(fd);
	return err;
}
