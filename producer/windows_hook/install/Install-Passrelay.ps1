<#
.SYNOPSIS
Sets passrelay up on this Windows domain controller, or repairs and updates it; may be run again at any time.

.DESCRIPTION
Checks what only PowerShell should ask before a program is started, and calls `passrelay producer windows install`, which
decides and does everything else: folders and their access, registry, DLL, Notification Packages, event log, service.
-WhatIf shows the steps and changes nothing. docs/windows.md has the whole way.

Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 something is unavailable, 4 refused for safety.

.EXAMPLE
.\Install-Passrelay.ps1 -HookKey .\hook.pub.json -WhatIf

.EXAMPLE
Invoke-Command -ComputerName dc1, dc2 { & 'C:\Program Files\passrelay\Install-Passrelay.ps1' -Silent }

On many controllers the first time: only the folders, into which configuration and keys are put then.

.EXAMPLE
Invoke-Command -ComputerName dc1, dc2 { & 'C:\Program Files\passrelay\Install-Passrelay.ps1' -Silent -HookKey 'C:\ProgramData\passrelay\hook.pub.json' }

Everything else, when they are in place.
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    # The folder with python.exe, passrelay and passrelay-hook.dll.
    [string] $Program = (Join-Path $env:ProgramFiles 'passrelay'),

    # The active hook key's document, made by `passrelay keys init hook` on a consumer.
    [string] $HookKey = '',

    # The producer's configuration.
    [string] $Config = (Join-Path $env:ProgramData 'passrelay\producer.toml'),

    # The DLL carries Microsoft's signature, so a hardened LSASS (RunAsPPL) will load it.
    [switch] $SignedByMicrosoft,

    # Asks nothing and writes one JSON document: for many controllers.
    [switch] $Silent
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

function Exit-Refused([int] $Code, [string] $Why) {
    if ($Silent) {
        # As the program's own document: over remoting nothing else comes back, no exit code either.
        $failures = @(@{ check = 'windows'; subject = ''; detail = $Why })
        [ordered]@{ schema = 'passrelay.windows/1'; ok = $false; failures = $failures; done = $false } | ConvertTo-Json -Compress -Depth 4
    }
    else {
        $Host.UI.WriteErrorLine("passrelay: $Why")
    }
    exit $Code
}

$principal = [Security.Principal.WindowsPrincipal]::new([Security.Principal.WindowsIdentity]::GetCurrent())
if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
    Exit-Refused 4 'start PowerShell as administrator'
}
if (-not [Environment]::Is64BitProcess) {
    Exit-Refused 4 'this PowerShell is a 32-bit one: start the 64-bit one'
}
$python = Join-Path $Program 'python.exe'
if (-not (Test-Path -LiteralPath $python -PathType Leaf)) {
    Exit-Refused 2 "$python is missing: copy the program's folder there (docs/windows.md), or name it with -Program"
}

$arguments = @('-I', '-m', 'passrelay_ops', 'producer', 'windows', 'install', '--config', $Config)
if ($HookKey) { $arguments += @('--hook-key', $HookKey) }
if ($SignedByMicrosoft) { $arguments += '--signed-by-microsoft' }

# Windows PowerShell takes what a program says on stderr for an error, over remoting also unredirected, and would end here.
$ErrorActionPreference = 'Continue'
if ($Silent) {
    $arguments += '--json'
    if (-not $WhatIfPreference) { $arguments += '--yes' }
    # Whatever does not even start is a failure. The document has the program's failures too.
    $said, $code = $null, 1
    $said = & $python @arguments 2>$null
    $code = $LASTEXITCODE
    if (-not $said) { Exit-Refused ([Math]::Max($code, 1)) "$python ended with $code and without a word: run this without -Silent" }
    $said
    exit $code
}
# The plan; without --yes nothing is done.
& $python @arguments
if ($LASTEXITCODE -ne 0 -or $WhatIfPreference) { exit $LASTEXITCODE }
if ($PSCmdlet.ShouldProcess($env:COMPUTERNAME, 'Carry out these steps')) {
    & $python @arguments --yes
}
exit $LASTEXITCODE
