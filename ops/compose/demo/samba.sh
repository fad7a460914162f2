#!/bin/sh
# The demo's domain controller: Samba, provisioned at the first start. /files holds server.pem, server.key, ca.pem,
# samba-gpg.pub and reader.password; all data is in /var/lib/samba.
set -eu
umask 022
data=/var/lib/samba
conf=$data/smb.conf

provision() {
    # What an earlier start left half made; private/ldap_priv is a volume of its own, which the producer sees too.
    find $data -mindepth 1 ! -path $data/private ! -path "$data/private/ldap_priv*" -delete
    mkdir -p $data/private $data/state/sysvol/ad.example/scripts $data/tls $data/cache $data/lock
    chmod 700 $data/private
    install -d -m 0700 "$GNUPGHOME"
    gpg --batch --quiet --import /files/samba-gpg.pub
    fingerprint=$(gpg --batch --with-colons --list-keys | awk -F: '/^fpr/ {print $10; exit}')
    cat >$conf <<CONF
[global]
    netbios name = DC1
    realm = AD.EXAMPLE
    workgroup = AD
    server role = active directory domain controller
    server services = ldap, cldap, kdc, rpc
    disable netbios = yes
    private dir = $data/private
    state directory = $data/state
    cache directory = $data/cache
    lock directory = $data/lock
    pid directory = /run
    ncalrpc dir = /run/ncalrpc
    winbindd socket directory = /run/winbindd
    ntp signd socket directory = $data/ntp_signd
    binddns dir = $data/bind-dns
    logging = file
    log file = /dev/stderr
    tls keyfile = $data/tls/key.pem
    tls certfile = $data/tls/cert.pem
    tls cafile = $data/tls/ca.pem
    password hash gpg key ids = $fingerprint
    # The kernel's security.NTACL would need CAP_SYS_ADMIN.
    acl_xattr:security_acl_name = user.NTACL
[sysvol]
    path = $data/state/sysvol
    read only = no
[netlogon]
    path = $data/state/sysvol/ad.example/scripts
    read only = no
CONF
    samba-tool domain provision --realm=AD.EXAMPLE --domain=AD --server-role=dc --dns-backend=NONE \
        --host-name=dc1 --domain-sid=S-1-5-21-1111111111-2222222222-3333333333 --quiet
    # For trying things out: a password may be changed again at once, and an old one used again.
    samba-tool domain passwordsettings set --min-pwd-age=0 --history-length=0 --quiet
    for user in alice bob carol; do
        samba-tool user add $user --random-password
    done
    password=$(cat /files/reader.password)
    printf '%s\n%s\n' "$password" "$password" | samba-tool user add passrelay-reader
    touch $data/complete
}

[ -e $data/complete ] || provision
install -m 0644 /files/ca.pem $data/tls/ca.pem
install -m 0644 /files/server.pem $data/tls/cert.pem
install -m 0600 /files/server.key $data/tls/key.pem
rm -f /run/samba.pid
exec samba --foreground --no-process-group --configfile=$conf --debug-stdout
