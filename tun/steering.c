#include "tun/steering.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tun/inner.h"

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
/* takes the place of two instructions */
#define SET64(d, k)                                                                                          \
	INSN(BPF_LD | BPF_IMM | BPF_DW, d, 0, 0, (int32_t)(uint32_t)(k)),                                    \
		INSN(0, 0, 0, 0, (int32_t)(uint32_t)((k) >> 32))
#define ALU(op, d, k) INSN(BPF_ALU64 | (op) | BPF_K, d, 0, 0, k)
#define ALU_REG(op, d, s) INSN(BPF_ALU64 | (op) | BPF_X, d, s, 0, 0)
#define JUMP(to) INSN(BPF_JMP | BPF_JA, 0, 0, to, 0)
#define JUMP_IF(op, d, k, to) INSN(BPF_JMP | (op) | BPF_K, d, 0, to, k)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

#define HASH BPF_REG_7
#define PROTO BPF_REG_8
#define AT BPF_REG_9

#define ADDRESS_WORDS 8 /* of IPv6; IPv4 uses the keys of the first two */

/*
 * The hash of a flow is start + word[0] * w[0] + word[1] * w[1] + ..., modulo 2^64. Whoever does not know the
 * keys cannot choose flows of equal hash: any two that differ are equal under one in 2^32 keys or fewer. mix
 * then breaks up the even steps at which a sum takes flows that are numbered in sequence, so that these, too,
 * spread as if drawn at random.
 */
struct keys {
	uint64_t start;
	uint64_t word[ADDRESS_WORDS];
	uint64_t ports;
	uint64_t proto;
	uint64_t mix; /* odd: no hash is lost in the multiplication */
};

static int load(unsigned nr_queues, const struct keys *keys) MUST_CHECK;

/* HASH += r0 * key: four instructions */
#define ADD_WORD(key)                                                                                        \
	SET64(BPF_REG_1, key), ALU_REG(BPF_MUL, BPF_REG_0, BPF_REG_1), ALU_REG(BPF_ADD, HASH, BPF_REG_0)
#define ADD_ADDRESS(k, i) LOAD32(k), ADD_WORD(keys->word[i])

int steering_attach(int tun_fd, unsigned nr_queues)
{
	struct keys keys;
	int fd, err;

	/* Whoever knew the keys could aim all flows at one queue; so each device has its own. */
	if (getrandom(&keys, sizeof(keys), 0) != (ssize_t)sizeof(keys))
		return -EIO;
	keys.mix |= 1;
	fd = load(nr_queues, &keys);
	if (fd < 0)
		return fd;
	err = ioctl(tun_fd, TUNSETSTEERINGEBPF, &fd) ? -errno : 0;
	/* The device holds a reference of its own. */
	close(fd);
	return err;
}

/* A descriptor of the program, or -errno. */
static int load(unsigned nr_queues, const struct keys *keys)
{
	/*
	 * In a TUN device's packet the IP header is at offset 0: there is no link layer. Jumps count the
	 * instructions they skip, SET64 as two.
	 */
	const struct bpf_insn program[] = {
		MOVE(BPF_REG_6, BPF_REG_1), /* the packet loads want the context here */
		SET64(HASH, keys->start),
		LOAD8(0),
		ALU(BPF_RSH, BPF_REG_0, 4),
		JUMP_IF(BPF_JEQ, BPF_REG_0, 6, 21), /* to IPv6 */
		JUMP_IF(BPF_JEQ, BPF_REG_0, 4, 2),
		SET(BPF_REG_0, 0),
		EXIT(),
		/* IPv4 */
		ADD_ADDRESS(IP4_SRC, 0),
		ADD_ADDRESS(IP4_DST, 1),
		LOAD8(IP4_PROTO),
		MOVE(PROTO, BPF_REG_0),
		LOAD16(IP4_FRAGMENT),
		/* a fragment: to the end, ports do not count */
		JUMP_IF(BPF_JSET, BPF_REG_0, IP4_IS_FRAGMENT, 55),
		LOAD8(0),
		ALU(BPF_AND, BPF_REG_0, 15),
		ALU(BPF_LSH, BPF_REG_0, 2),
		JUMP(43), /* to the ports */
		/* IPv6 */
		ADD_ADDRESS(IP6_SRC, 0),
		ADD_ADDRESS(IP6_SRC + 4, 1),
		ADD_ADDRESS(IP6_SRC + 8, 2),
		ADD_ADDRESS(IP6_SRC + 12, 3),
		ADD_ADDRESS(IP6_DST, 4),
		ADD_ADDRESS(IP6_DST + 4, 5),
		ADD_ADDRESS(IP6_DST + 8, 6),
		ADD_ADDRESS(IP6_DST + 12, 7),
		/* an extension header, that of fragments too, stands where TCP or UDP would */
		LOAD8(IP6_NEXT_HEADER),
		MOVE(PROTO, BPF_REG_0),
		SET(BPF_REG_0, INNER_IPV6_HEADER),
		/* ports: r0 is where */
		MOVE(AT, BPF_REG_0),
		JUMP_IF(BPF_JEQ, PROTO, IPPROTO_TCP, 1),
		JUMP_IF(BPF_JNE, PROTO, IPPROTO_UDP, 5),
		LOAD32_AT(AT, 0),
		ADD_WORD(keys->ports),
		/* end */
		MOVE(BPF_REG_0, PROTO),
		ADD_WORD(keys->proto),
		MOVE(BPF_REG_0, HASH),
		ALU(BPF_RSH, BPF_REG_0, 32),
		ALU_REG(BPF_XOR, HASH, BPF_REG_0),
		SET64(BPF_REG_1, keys->mix),
		ALU_REG(BPF_MUL, HASH, BPF_REG_1),
		MOVE(BPF_REG_0, HASH),
		ALU(BPF_RSH, BPF_REG_0, 32), /* the bits that all others have reached */
		ALU(BPF_MOD, BPF_REG_0, (int)nr_queues),
		EXIT(),
	};
	union bpf_attr attr;
	int fd;

	/* all of it, padding too: the kernel refuses bytes that it does not know unless they are zero */
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (uintptr_t)program;
	attr.insn_cnt = ARRAY_LEN(program);
	attr.license = (uintptr_t) "GPL";
	memcpy(attr.prog_name, "sluice_steer", sizeof("sluice_steer"));
	fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	return fd < 0 ? -errno : fd;
}
