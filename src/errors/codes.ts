/**
 * The stable codes of {@link LacunaError}. Programs may branch on them; messages may change.
 * docs/errors.md says for each what happened and what to do.
 */
export type ErrorCode =
  /** The caller's AbortSignal fired. The error's `name` is `AbortError`. */
  | 'ERR_ABORTED'
  /** Something took longer than its limit. */
  | 'ERR_TIMEOUT'
  /** The shared arena has no room left: it ends at 4 GiB, or at what it was made with. */
  | 'ERR_ARENA_FULL'
  /** Two bitmaps, or a bitmap and a device, do not fit each other (sizes differ). */
  | 'ERR_BITMAP_MISMATCH'
  /** Serialized bits that cannot be what they claim to be. */
  | 'ERR_BITMAP_CORRUPT'
  /** A dirty bitmap is used by somebody, or has a successor, and must stay as it is. */
  | 'ERR_BITMAP_BUSY'
  /** A dirty bitmap whose store cannot be written must not change. */
  | 'ERR_BITMAP_READONLY'
  /** A dirty bitmap missed writes, because the program that recorded into it never closed its store. */
  | 'ERR_BITMAP_INCONSISTENT'
  /** There is a dirty bitmap of that name already. */
  | 'ERR_BITMAP_EXISTS'
  /** There is no dirty bitmap of that name, or not any more. */
  | 'ERR_BITMAP_UNKNOWN'
  /** The bits of a stored bitmap are not in memory yet; `load` brings them. */
  | 'ERR_BITMAP_UNLOADED'
  /** A file of bitmaps could not be read or written; `errno` says why. */
  | 'ERR_BITMAP_FILE'
  /** A device could not be opened: it is not there, not allowed, or not of a kind that is known. */
  | 'ERR_DEVICE_OPEN'
  /** Somebody uses a file in a way that does not go with this one: locks keep the two apart. */
  | 'ERR_DEVICE_LOCKED'
  /** Somebody made, replaced or removed a file while another was made for its name; it was left alone. */
  | 'ERR_FILE_CHANGED'
  /** A read, write or other request failed; `errno` says why where the system told. */
  | 'ERR_DEVICE_IO'
  /** A device holds fewer bytes than its size promised. */
  | 'ERR_DEVICE_SHORT'
  /** The device is closed. */
  | 'ERR_DEVICE_CLOSED'
  /** The device cannot do this at all (write to a read-only one, zero without support). */
  | 'ERR_DEVICE_UNSUPPORTED'
  /** An image format that must not be guessed, or that cannot be read here. */
  | 'ERR_DEVICE_FORMAT'
  /** A file that an image names (its backing file, its data file) must not, or cannot, be followed. */
  | 'ERR_IMAGE_CHAIN'
  /** Something in a qcow2 image that cannot be: the message says what, and where. */
  | 'ERR_QCOW2_CORRUPT'
  /** A qcow2 image needs what is not known here: encryption, a newer feature. */
  | 'ERR_QCOW2_UNSUPPORTED'
  /** The device has no such metadata context. */
  | 'ERR_CONTEXT_UNKNOWN'
  /** The peer broke the NBD protocol; the connection is closed. */
  | 'ERR_NBD_PROTOCOL'
  /** The peer answered a request with an error; `errno` is the wire's error name. */
  | 'ERR_NBD_REMOTE'
  /** The connection was lost, or could not be made. */
  | 'ERR_NBD_DISCONNECTED'
  /** Writes that were acknowledged may be gone: the connection was lost before they were flushed. */
  | 'ERR_NBD_UNFLUSHED'
  /** TLS was asked for, or demanded, and could not be had exactly as asked. */
  | 'ERR_NBD_TLS'
  /** The peer lacks something that this call needs. */
  | 'ERR_NBD_UNSUPPORTED'
  /** A monitor or guest agent said something that its protocol does not allow; the connection is closed. */
  | 'ERR_QMP_PROTOCOL'
  /** QEMU, or a guest agent, refused a command; `errno` is the class of the error, `description` its words. */
  | 'ERR_QMP_COMMAND'
  /** The connection to a monitor was lost, or could not be made; nothing was sent over it that may still be done. */
  | 'ERR_QMP_DISCONNECTED'
  /** A command was sent and not answered: it may have been carried out, or may still be. */
  | 'ERR_QMP_UNANSWERED'
  /** Another client uses the monitor. */
  | 'ERR_QMP_BUSY'
  /** This QEMU does not have what is needed. */
  | 'ERR_QMP_UNSUPPORTED'
  /** No guest agent is there, or it does not answer. */
  | 'ERR_AGENT_ABSENT'
  /** A machine has no such disk, or one that cannot be backed up. */
  | 'ERR_MACHINE_DISK'
  /** libvirt has refused something, or cannot be reached. */
  | 'ERR_LIBVIRT'
  /** Something in a machine is in the way: a job, an NBD server, a bitmap that is in use. */
  | 'ERR_MACHINE_BUSY'
  /** The guest was frozen and could not be told to thaw: it may still be frozen. */
  | 'ERR_MACHINE_FROZEN'
  /** A freeze was required, and the file systems of the guest were not frozen at the point in time. */
  | 'ERR_MACHINE_NOT_FROZEN'
  /** Something of a backup is left in a machine, and could not be removed. */
  | 'ERR_MACHINE_LEFTOVERS'
  /** The view of a backup's point in time was lost: what was read of it does not count. */
  | 'ERR_VIEW_LOST'
  /** The scratch space of a backup was used up, and the backup was given up in favour of the guest. */
  | 'ERR_SCRATCH_FULL'
  /** QEMU could not push the disks of a backup to the server that takes them: nothing of it counts. */
  | 'ERR_PUSH_FAILED'
  /** A migration has ended before its machine had moved, and the source goes on, or is as it was. */
  | 'ERR_MIGRATION_FAILED'
  /** A machine has left the source, and is not known to run on the destination: a person has to look. */
  | 'ERR_MIGRATION_UNDECIDED'
  /** A command that was to run before or after a backup has failed. */
  | 'ERR_HOOK_FAILED'
  /** A file of this package is not where the program that uses it, or was bundled with it, can find it. */
  | 'ERR_PACKAGE_FILE'
  /** A server that a command line has in brackets has failed. */
  | 'ERR_SERVER_FAILED'
  /** A mirror has ended before its time: the replica does not equal the disk, and what it lacks is still marked. */
  | 'ERR_MIRROR_LOST'
  /** What is known of a replica is of something else, or the replica was changed: only a full copy makes it equal again. */
  | 'ERR_REPLICA_MISMATCH'
  /** Source and target do not fit each other. */
  | 'ERR_COPY_MISMATCH'
  /** A source of 0 bytes would replace a target that holds something, or comes from a server that may not be ready. */
  | 'ERR_COPY_EMPTY'
  /** A copy is whole, and could not get its name. */
  | 'ERR_COPY_UNNAMED'
  /** Long work was asked to stop, and has: what was in flight is finished, and what it makes is not whole. */
  | 'ERR_JOB_STOPPED'
  /** A resume file belongs to another copy: of another source or target, or of other changes. */
  | 'ERR_RESUME_MISMATCH'
  /** A resume file is damaged, or none at all. */
  | 'ERR_RESUME_CORRUPT'
  /** Another copy uses the resume file now. */
  | 'ERR_RESUME_BUSY'
  /** A resume file could not be read or written; `errno` says why. */
  | 'ERR_RESUME_FILE'
  /** What a copy has written reads back as something else. */
  | 'ERR_COPY_VERIFY'
  /** A worker thread ended before its work was done. */
  | 'ERR_WORKER_LOST'
  /** A package that only some need is not installed; the message says which. */
  | 'ERR_PACKAGE_MISSING'
  /** A folder is no repository, or one of a version that is not known here. */
  | 'ERR_REPOSITORY_FORMAT'
  /** A file of a repository could not be read or written; `errno` says why. */
  | 'ERR_REPOSITORY_FILE'
  /** Something in a repository is not what it was when it was written, or is not there. */
  | 'ERR_REPOSITORY_DAMAGED'
  /** Somebody uses the machine's restore points in a way that does not go with this one. */
  | 'ERR_REPOSITORY_LOCKED'
  /** Somebody changed the machine's restore points meanwhile. */
  | 'ERR_REPOSITORY_CHANGED'
  /** An edge of a graph leads to another node than the caller expected: somebody has changed the graph meanwhile. */
  | 'ERR_GRAPH_EDGE_CHANGED'
  /** Users of a node do not go together, or nodes would not fit each other. */
  | 'ERR_GRAPH_CONFLICT'
  /** A graph could not be changed, because something was in use for too long. */
  | 'ERR_GRAPH_BUSY'
  /** A graph has no node, export or job of that name. */
  | 'ERR_GRAPH_UNKNOWN'
  /** A graph has a node, an export or a job of that name already. */
  | 'ERR_GRAPH_EXISTS'
  /** A repository has no such machine, restore point or disk. */
  | 'ERR_POINT_UNKNOWN';
